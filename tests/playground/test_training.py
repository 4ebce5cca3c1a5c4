"""Training on the playground's page: watched, stopped, changed, published, and what goes wrong."""

import asyncio
import http.client
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect

from mlpserve.datasets import load_test_split
from mlpserve.model.folder import versions
from mlpserve.model.locks import lock_folder
from mlpserve.playground.run_folder import remove_abandoned
from mlpserve.playground.training import Training
from visitor import Visitor, playing, serving

pytestmark = pytest.mark.exhaustive

WAIT_S = 60
WAIT_MS = 1000 * WAIT_S
SHORT = {
    "data": "own",
    "recipe": "fast",
    "layers": "16,16",
    "learning-rate": "0.01",
    "epochs": "8",
}
LONG = {**SHORT, "epochs": "1000"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, mnist_folder: Path) -> Path:
    """Return a visitor's file, with 3000 images."""
    split = load_test_split("mnist", data_dir=mnist_folder).select(np.arange(3000))
    path = tmp_path_factory.mktemp("visitor") / "my digits.npz"
    np.savez(path, images=split.images, labels=split.labels)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """Return a models folder of these tests' own."""
    return Path(shutil.copytree(digits, tmp_path_factory.mktemp("training") / "models"))


@pytest.fixture(scope="module")
def target(models: Path) -> Iterator[str]:
    """Return where a server of these models answers."""
    with serving(models) as (_, address):
        yield address


class Playground:
    """A playground with a folder of its own for what it keeps."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, kept: Path) -> None:
        self.process, self.url, self.kept = process, url, kept

    def post(self, action: str, body: bytes = b"", **query: str) -> tuple[int, str]:
        address = f"{self.url}/api/training/{action}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(address, body, {"Origin": self.url})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310
                return answer.status, ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["error"]

    def start(self, settings: dict[str, str]) -> tuple[int, str]:
        return self.post("start", json.dumps(settings).encode())

    def send(self, file: Path) -> None:
        assert self.post("file", file.read_bytes(), name=file.name) == (200, "")

    def states(self) -> Iterator[dict[str, Any]]:
        address = f"{self.url}/api/training"
        with urllib.request.urlopen(address, timeout=WAIT_S) as answer:  # noqa: S310
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    def wait_for(self, *phases: str, points: int = 0) -> dict[str, Any]:
        found: list[Any] = []
        for state in self.states():
            found = [*found[: state["from"]], *state["points"]]
            if state["phase"] in phases and len(found) >= points:
                return {**state, "points": found}
        pytest.fail("the playground went away")

    @property
    def trainer(self) -> int:
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)


@pytest.fixture
def playground(
    target: str,
    models: Path,
    mnist_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Playground]:
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setenv("TMPDIR", str(kept))
    flags = ("--target", target, "--models", models, "--data-dir", mnist_folder)
    with playing(*flags) as (process, url):
        yield Playground(process, url, kept)
    assert list(kept.iterdir()) == []


class Tab(Visitor):
    """The page in a tab, at its training."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        super().__init__(context, url)
        self.visit()
        self.page.wait_for_selector("#training:not([hidden])")

    def choose(self, file: Path | None = None, **settings: str) -> None:
        form = self.page.locator("#settings")
        if file is not None:
            form.locator("[name=data]").select_option("own")
            form.locator("[name=file]").set_input_files(file)
        for name, value in settings.items():
            field = form.locator(f"[name={name.replace('_', '-')}]")
            if name in {"data", "recipe"}:
                field.select_option(value)
            else:
                field.fill(value)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click(timeout=WAIT_MS)

    def expect(self, text: str, selector: str = "#training-said") -> None:
        expect(self.page.locator(selector)).to_contain_text(text, timeout=WAIT_MS)

    def heights(self, curve: str) -> list[float]:
        points = self.page.locator(curve).get_attribute("points") or ""
        return [float(point.split(",")[1]) for point in points.split()]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context(viewport={"width": 1360, "height": 900})
    yield found
    found.close()


def test_a_visitor_trains_on_a_file_changes_things_publishes_and_predicts(
    playground: Playground, context: BrowserContext, images: Path, models: Path
) -> None:
    tab = Tab(context, playground.url)
    tab.choose(images, recipe="fast", epochs="8")
    tab.press("Train")
    tab.expect("It ended: all epochs are done")
    tab.expect("my-digits.npz, hidden layers of 16, 16, learning rate 0.01", "#training-now")
    accuracy = tab.heights("#accuracy .plus")
    assert accuracy[-1] < accuracy[0] - 50  # pixels from above
    assert tab.heights("#loss .minus")[-1] > tab.heights("#loss .minus")[0] + 50
    assert tab.heights("#loss .before") == []
    label = tab.page.locator("#accuracy").get_attribute("aria-label") or ""
    assert re.match(r"Curve of the accuracy training \d+\.\d % held-out images \d+\.\d %", label)
    layer = tab.page.locator("#first-layer")
    assert layer.evaluate("one => [one.width, one.height]") == [4 * 29 - 1, 4 * 29 - 1]
    right = tab.page.locator("#confusions .right").all_text_contents()
    assert sum(int(count or 0) for count in right) > 150  # of 270

    tab.choose(layers="5", learning_rate="0.001", epochs="1000")
    tab.press("Train")
    tab.expect("hidden layers of 5, learning rate 0.001", "#training-now")
    assert tab.heights("#loss .before") != []
    assert layer.evaluate("one => one.height") == 3 * 29 - 1
    tab.press("Stop")
    tab.expect("It was stopped.")
    tab.press("Go on")
    tab.press("Stop")
    tab.expect("It was stopped.")
    tab.press("Publish")
    tab.expect("It is published as version 1 of playground")
    assert versions(models, "playground") == [1]
    tab.press("Predict with version 1")
    expect(tab.page.locator("#model")).to_have_value("playground", timeout=WAIT_MS)
    tab.draw("1")
    tab.expect_said("It says")
    tab.expect("playground version 1", "#took")
    assert tab.complaints == []


def test_two_tabs_see_the_same_training_and_one_that_comes_late_is_told_all(
    playground: Playground, context: BrowserContext, images: Path
) -> None:
    one, other = Tab(context, playground.url), Tab(context, playground.url)
    one.choose(images, recipe="fast", epochs="1000")
    one.press("Train")
    other.expect("learning rate 0.01", "#training-now")
    playground.wait_for("running", points=5)
    late = Tab(context, playground.url)
    late.expect("learning rate 0.01", "#training-now")
    assert len(late.heights("#loss .plus")) >= 5
    late.press("Stop")
    for tab in (one, other, late):
        tab.expect("It was stopped.")
        expect(tab.page.locator("#start")).to_be_enabled()
    curves = [tab.heights("#loss .plus") for tab in (one, other, late)]
    assert curves[0] == curves[1] == curves[2]
    assert [tab.complaints for tab in (one, other, late)] == [[], [], []]


def test_what_is_wrong_is_said_on_the_page(
    playground: Playground, context: BrowserContext, tmp_path: Path
) -> None:
    tab = Tab(context, playground.url)
    for name, value, expected in [
        ("layers", "0", "layers: expected up to 4 widths from 1 to 512, as in 16,16, got '0'"),
        ("layers", "10000", "layers: expected up to 4 widths from 1 to 512, as in 16,16"),
        ("learning_rate", "NaN", "learning rate: expected from 0.000001 to 100, got 'NaN'"),
        ("epochs", "1e9", "epochs: expected a whole number from 1 to 1000, got '1e9'"),
    ]:
        tab.choose(None, **{"layers": "16", "learning_rate": "0.5", "epochs": "2", name: value})
        tab.press("Train")
        tab.expect(expected, "#training-error")
    tab.choose(layers="16", epochs="2", data="own")
    tab.press("Train")
    tab.expect("data: expected a file of your own first", "#training-error")
    (tmp_path / "notes.txt").write_text("no data")
    tab.choose(tmp_path / "notes.txt")
    tab.press("Train")
    tab.expect("file: expected a file .npz, .csv", "#training-error")
    # The browser notes each answer that is no success; nothing else is amiss.
    assert {text.partition("(")[0] for text in tab.complaints} == {
        "Failed to load resource: the server responded with a status of 422 "
    }
    tab.complaints.clear()
    (tmp_path / "notes.npz").write_text("no data")
    tab.choose(tmp_path / "notes.npz")
    tab.press("Train")
    tab.expect("It failed.")
    tab.expect("notes.npz", "#training-problems")
    said = tab.page.locator("#training-problems").text_content() or ""
    assert str(playground.kept) not in said
    assert tab.complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 390)])
def test_axe_finds_nothing_serious_in_a_training(
    playground: Playground, browser: Browser, images: Path, scheme: Any, width: int
) -> None:
    playground.send(images)
    assert playground.start(SHORT) == (200, "")
    playground.wait_for("finished", points=2)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = Tab(context, playground.url)
    tab.expect("It ended")
    found = Axe().run(tab.page, context="#training").response["violations"]
    assert [one["id"] for one in found if one["impact"] in {"serious", "critical"}] == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_a_trainer_that_is_killed_is_said_and_can_go_on_from_its_checkpoint(
    playground: Playground, images: Path
) -> None:
    playground.send(images)
    assert playground.start(LONG) == (200, "")
    playground.wait_for("running", points=2)
    os.kill(playground.trainer, signal.SIGKILL)
    state = playground.wait_for("failed", "stopped")
    assert state["message"] == "the trainer was killed by SIGKILL"
    assert playground.start(LONG) == (200, "")
    playground.wait_for("running", points=2)
    assert playground.post("stop") == (200, "")
    learned = playground.wait_for("stopped", points=2)
    assert playground.post("resume") == (200, "")
    more = playground.wait_for("running", points=len(learned["points"]) + 1)
    epochs = [point[0] for point in more["points"]]
    assert epochs == sorted(epochs)
    assert playground.start(LONG) == (409, "training: one is under way; stop it first")
    assert playground.post("publish")[0] == 409
    assert playground.post("file", b"x", name="other.npz")[0] == 409


def test_a_training_ends_with_the_playground_and_nothing_is_left(
    playground: Playground, images: Path
) -> None:
    playground.send(images)
    assert playground.start(LONG) == (200, "")
    watching = playground.states()
    next(watching)
    playground.wait_for("running", points=1)
    trainer = playground.trainer
    playground.process.send_signal(signal.SIGTERM)
    assert playground.process.wait(timeout=WAIT_S) == -signal.SIGTERM
    list(watching)  # it comes to an end
    with pytest.raises(ProcessLookupError):
        os.kill(trainer, 0)


def test_a_trainer_whose_playground_is_killed_removes_what_was_kept_and_ends(
    playground: Playground, images: Path
) -> None:
    playground.send(images)
    assert playground.start(LONG) == (200, "")
    playground.wait_for("running", points=1)
    end = os.pidfd_open(playground.trainer)
    playground.process.kill()
    assert select.select([end], [], [], WAIT_S)[0]
    os.close(end)
    assert list(playground.kept.iterdir()) == []


def test_what_a_playground_left_that_was_killed_is_removed_by_the_next(
    playground: Playground, target: str
) -> None:
    assert playground.post("file", b"x", name="mine.npz") == (200, "")
    with playing("--target", target):
        assert len(list(playground.kept.iterdir())) == 1  # of one that lives
    playground.process.kill()
    playground.process.wait(timeout=WAIT_S)
    assert len(list(playground.kept.iterdir())) == 1
    with playing("--target", target) as (_, url):
        next(Playground(playground.process, url, playground.kept).states())
        assert list(playground.kept.iterdir()) == []


def test_a_full_disk_is_said(playground: Playground, images: Path) -> None:
    playground.send(images)
    # Files of the playground and its trainer can be of a kilobyte only.
    process = playground.process.pid
    _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, 1000))
    assert hard == resource.RLIM_INFINITY
    status, message = playground.post("file", images.read_bytes(), name="large.npz")
    assert (status, message) == (507, "training: nothing can be kept: File too large")
    assert next(playground.states())["file"] == "my-digits.npz"
    assert playground.start(SHORT) == (200, "")
    state = playground.wait_for("failed", "stopped")
    assert "a checkpoint cannot be written: File too large" in state["message"]


def test_a_file_may_have_any_name(playground: Playground) -> None:
    for name, kept in [
        ("../../etc/my table.CSV.gz", "etc-my-table.csv.gz"),
        ("数字.npz", "data.npz"),
        ("-rf.npz", "rf.npz"),
        (f"{200 * 'a'}.npz", f"{60 * 'a'}.npz"),
    ]:
        assert playground.post("file", b"x", name=name) == (200, "")
        assert next(playground.states())["file"] == kept
        (folder,) = playground.kept.iterdir()
        assert [path.name for path in folder.rglob("*.*")] == [kept]


def test_a_file_that_is_not_sent_whole_changes_nothing(playground: Playground) -> None:
    assert playground.post("file", b"x", name="whole.npz") == (200, "")
    address = urllib.parse.urlsplit(playground.url)
    with socket.create_connection((address.hostname, address.port), timeout=WAIT_S) as connection:
        head = f"POST /api/training/file?name=half.npz HTTP/1.1\r\nHost: {address.netloc}\r\n"
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\nhalf".encode())
    states = playground.states()
    next(states)
    while playground.post("file", b"x", name="whole.npz")[0] == 409:  # it is being received
        next(states)
    (folder,) = playground.kept.iterdir()
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["whole.npz"]
    playground.process.terminate()
    assert playground.process.stderr is not None
    assert playground.process.stderr.read() == ""


def test_what_cannot_be_published_can_be_published_later(
    playground: Playground, images: Path, models: Path
) -> None:
    playground.send(images)
    assert playground.start({**SHORT, "learning-rate": "0.02"}) == (200, "")
    playground.wait_for("finished", points=1)
    folder, aside = models / "playground", models / "aside"
    if folder.exists():
        folder.rename(aside)
    folder.touch()
    assert playground.post("publish") == (200, "")
    state = playground.wait_for("stopped", "failed", "published")
    assert (state["phase"], state["canPublish"]) == ("stopped", True)
    assert "playground" in state["message"]
    folder.unlink()
    if aside.exists():
        aside.rename(folder)
    assert playground.post("publish") == (200, "")
    assert playground.wait_for("published")["testAccuracy"] > 0.5


def test_what_nobody_uses_any_more_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mlpserve.playground.training._KEPT_S", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    async def send_and_wait() -> list[object]:
        training = Training(None, None, is_allowed=True)
        watching = training.watch()
        files = [json.loads((await anext(watching))[len("data: ") :])["file"]]
        await training.receive("data.npz", pieces())
        async for state in watching:
            files.append(json.loads(state[len("data: ") :])["file"])
            if files[-1] is None:
                break
        return files

    with ThreadPoolExecutor() as pool:  # this thread has Playwright's event loop
        assert pool.submit(lambda: asyncio.run(send_and_wait())).result() == [
            None,
            "data.npz",
            None,
        ]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(playground: Playground) -> None:
    host = urllib.parse.urlsplit(playground.url).netloc
    connection = http.client.HTTPConnection(host, timeout=WAIT_S)
    connection.putrequest("POST", "/api/training/file?name=huge.npz")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.load(answer)["error"] == "body: expected at most 131072 KiB, got more"
    connection.close()


def test_nobody_trains_where_it_is_not_allowed(
    target: str, models: Path, context: BrowserContext
) -> None:
    with playing("--target", target, "--models", models, "--no-training") as (process, url):
        found = Playground(process, url, Path())
        assert found.start({**SHORT, "data": "drawn"})[0] == 403
        assert found.post("file", b"x", name="data.npz")[0] == 403
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("body[data-state=ready]")
        expect(page.locator("#training")).to_be_hidden()


def test_beyond_this_machine_training_needs_the_names_of_the_host() -> None:
    command = [sys.executable, "-m", "mlpserve.playground", "--host", "::", "--training"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 1
    assert "--training: expected --allowed-host" in done.stderr


def test_what_killed_playgrounds_left_is_removed_and_no_descriptor_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for number in range(3):
        (tmp_path / f"mlpserve-playground-{number}").mkdir()
    others = tmp_path / "mlpserve-playground-in-use"
    others.mkdir()
    lock = lock_folder(others)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - as text
    remove_abandoned()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    assert list(tmp_path.iterdir()) == [others]
    os.close(lock)
