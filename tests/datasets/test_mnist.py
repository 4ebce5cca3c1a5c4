import gzip
import hashlib
import http.server
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mlpserve.datasets import DatasetError, mnist
from mlpserve.datasets.download import DownloadError
from mlpserve.datasets.idx import IDX_NAMES, TEST_IMAGES, TEST_LABELS, TRAIN_LABELS, idx_header
from mlpserve.datasets.mnist import cache_folder, load_mnist, load_mnist_test


class Mirror(http.server.HTTPServer):
    """Serves a folder over real HTTP, and remembers which files were asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.requested: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Mirror

    def log_request(self, *_: object) -> None:
        self.server.requested.append(self.path.strip("/"))

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def serving(folder: Path) -> Iterator[Mirror]:
    threads = set(threading.enumerate())
    with Mirror(folder) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.shutdown()
            thread.join()
    for ending in set(threading.enumerate()) - threads:
        ending.join(5)  # that of rich is told to end, and not waited for
    assert set(threading.enumerate()) <= threads


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache folder of its own, and no mirror but those it serves itself."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(mnist, "MIRRORS", ())
    folder = cache_folder()
    assert folder.is_relative_to(tmp_path)
    return folder


@pytest.fixture
def mirror(mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving(mnist_folder) as mirror:
        monkeypatch.setattr(mnist, "MIRRORS", (mirror.url,))
        yield mirror


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def copy(source: Path, folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(source / f"{name}.gz", folder)
        (folder / f"{name}.gz").chmod(0o600)
    return folder


def other_labels() -> bytes:
    return gzip.compress(idx_header((10_000,)) + bytes(10_000))


def test_the_real_files_are_mnist(mnist_folder: Path) -> None:
    dataset = load_mnist(mnist_folder)
    assert dataset.name == "mnist"
    assert dataset.class_labels == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert dataset.train.images.shape == (60_000, 28, 28)
    assert dataset.test.images.shape == (10_000, 28, 28)
    assert dataset.train.images.dtype == np.uint8
    # The first labels of each, as everyone who has printed them knows them.
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_the_test_split_is_that_of_the_whole(mnist_folder: Path) -> None:
    split, whole = load_mnist_test(mnist_folder), load_mnist(mnist_folder)
    np.testing.assert_array_equal(split.images, whole.test.images, strict=True)
    np.testing.assert_array_equal(split.labels, whole.test.labels, strict=True)


def test_files_that_are_not_gzipped_are_mnist_too(mnist_folder: Path, data_dir: Path) -> None:
    for name in IDX_NAMES:
        content = gzip.decompress((mnist_folder / f"{name}.gz").read_bytes())
        (data_dir / name.replace("-idx", ".idx")).write_bytes(content)
    assert len(load_mnist_test(data_dir)) == 10_000


@pytest.mark.parametrize("load", [load_mnist, load_mnist_test])
def test_a_data_dir_with_some_of_the_files_names_the_missing(
    mnist_folder: Path, data_dir: Path, load: Callable[[Path], object]
) -> None:
    copy(mnist_folder, data_dir, TEST_IMAGES, TEST_LABELS, TRAIN_LABELS)
    with pytest.raises(DatasetError, match=f"{data_dir}: .*missing train-images-idx3-ubyte$"):
        load(data_dir)


def test_other_data_in_the_data_dir_is_refused_by_name(mnist_folder: Path, data_dir: Path) -> None:
    copy(mnist_folder, data_dir, *IDX_NAMES)
    path = data_dir / f"{TEST_LABELS}.gz"
    path.write_bytes(other_labels())
    digest = hashlib.md5(gzip.decompress(other_labels()), usedforsecurity=False).hexdigest()
    with pytest.raises(DatasetError) as caught:
        load_mnist(data_dir)
    assert not isinstance(caught.value, DownloadError)
    assert str(caught.value) == (
        f"{path} is not the official MNIST file: its MD5 is {digest}, "
        "expected 27ae3e4e09519cfbb04c329615203637; "
        "for other data in this format use --data PATH"
    )


def test_a_damaged_file_in_the_data_dir_is_called_damaged(
    mnist_folder: Path, data_dir: Path
) -> None:
    copy(mnist_folder, data_dir, *IDX_NAMES)
    path = data_dir / f"{TEST_LABELS}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=f"^{path}: the gzip file is damaged: [^;]*$"):
        load_mnist(data_dir)


def test_a_data_dir_without_the_files_is_said_and_passed_over(
    mnist_folder: Path, cache: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy(mnist_folder, cache, *IDX_NAMES)
    assert len(load_mnist_test(data_dir)) == 10_000
    assert caplog.messages == [f"{data_dir} holds no MNIST files; looking in the cache folder"]


def test_all_four_files_are_downloaded_once(mirror: Mirror, cache: Path) -> None:
    assert len(load_mnist(None).train) == 60_000
    names = {f"{name}.gz" for name in IDX_NAMES}
    assert {path.name for path in cache.iterdir()} == names
    load_mnist(None)
    load_mnist_test(None)
    assert sorted(mirror.requested) == sorted(names)


def test_the_test_split_downloads_its_two_files_alone(mirror: Mirror, cache: Path) -> None:
    assert len(load_mnist_test(None)) == 10_000
    assert mirror.requested == [f"{TEST_LABELS}.gz", f"{TEST_IMAGES}.gz"]
    assert len(list(cache.iterdir())) == 2


def test_only_what_the_cache_lacks_is_downloaded(
    mirror: Mirror, mnist_folder: Path, cache: Path
) -> None:
    copy(mnist_folder, cache, TEST_LABELS)
    load_mnist_test(None)
    assert mirror.requested == [f"{TEST_IMAGES}.gz"]


@pytest.mark.parametrize("content", [b"", other_labels()], ids=["empty", "other labels"])
def test_a_file_damaged_in_the_cache_is_replaced(
    mirror: Mirror,
    mnist_folder: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    copy(mnist_folder, cache, *IDX_NAMES)
    damaged = cache / f"{TEST_LABELS}.gz"
    damaged.write_bytes(content)
    assert len(load_mnist_test(None)) == 10_000
    assert mirror.requested == [damaged.name]
    assert damaged.read_bytes() == (mnist_folder / damaged.name).read_bytes()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(damaged) in caplog.text


def test_what_a_mirror_sends_must_be_mnist(
    cache: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir / f"{TEST_LABELS}.gz").write_bytes(other_labels())
    with serving(data_dir) as mirror:
        monkeypatch.setattr(mnist, "MIRRORS", (mirror.url,))
        with pytest.raises(DownloadError, match=r"127.0.0.1: what it sent is not the official"):
            load_mnist(None)
    assert list(cache.iterdir()) == []


def test_no_other_file_is_tried_once_one_is_not_to_be_had(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data_dir) as mirror:
        monkeypatch.setattr(mnist, "MIRRORS", (mirror.url,))
        with pytest.raises(DownloadError, match=rf"{TEST_LABELS}.gz: cannot be downloaded .* 404"):
            load_mnist(None)
    assert mirror.requested == [f"{TEST_LABELS}.gz"]


def test_a_mirror_that_failed_is_not_asked_again(
    mnist_folder: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data_dir) as empty, serving(mnist_folder) as full:
        monkeypatch.setattr(mnist, "MIRRORS", (empty.url, full.url))
        load_mnist_test(None)
    assert empty.requested == [f"{TEST_LABELS}.gz"]
    assert full.requested == [f"{TEST_LABELS}.gz", f"{TEST_IMAGES}.gz"]


def test_a_cache_that_cannot_be_used_is_no_cache(cache: Path, mirror: Mirror) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(DownloadError, match="cannot be stored"):
        load_mnist(None)
    assert mirror.requested == []
