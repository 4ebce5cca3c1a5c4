"""A version that is broken, however it is, is never served, harms nobody, and says why."""

import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.client import Client
from mlpserve.model.archive import write_arrays
from mlpserve.model.compiled import CompiledModel, Workspace
from mlpserve.model.digests import DIGEST_FILE_NAME, digest_line
from mlpserve.model.folder import WEIGHTS_FILE_NAME, weights_path
from mlpserve.model.labels import set_label
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model, golden_samples, model_arrays
from mlpserve.server.server import Server
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

Arrays = dict[str, npt.NDArray[Any]]
Breaks = Callable[[Path, Model], None]
TIMEOUT_S = 60.0
IMAGES = np.random.default_rng(11).integers(0, 256, (6, 2, 3), np.uint8)


@pytest.fixture
def proven(model: Model) -> Model:
    """Return the tiny model with golden samples."""
    golden = golden_samples(model.network, model.metadata.input, IMAGES)
    return replace(model, golden=golden)


def with_arrays(change: Callable[[Arrays], Any]) -> Breaks:
    """Return what replaces the weights of a version by some whose digest is right."""

    def breaks(folder: Path, model: Model) -> None:
        arrays = {**model_arrays(model), "metadata": np.array(model.metadata.to_json())}
        change(arrays)
        with (folder / WEIGHTS_FILE_NAME).open("wb") as file:
            write_arrays(file, arrays)
        sign(folder)

    return breaks


def with_bytes(make: Callable[[bytes], bytes]) -> Breaks:
    """Return what replaces the bytes of the weights file, and leaves the digest."""

    def breaks(folder: Path, _: Model) -> None:
        path = folder / WEIGHTS_FILE_NAME
        path.write_bytes(make(path.read_bytes()))

    return breaks


def signed(breaks: Breaks) -> Breaks:
    """Return what does the same, and makes the digest that of what is there then."""

    def breaks_and_signs(folder: Path, model: Model) -> None:
        breaks(folder, model)
        sign(folder)

    return breaks_and_signs


def in_its_place(make: Callable[[Path], object], name: str = WEIGHTS_FILE_NAME) -> Breaks:
    """Return what removes a file of a version, and puts something else in its place."""

    def breaks(folder: Path, _: Model) -> None:
        (folder / name).unlink()
        make(folder / name)

    return breaks


def sign(folder: Path) -> None:
    (folder / DIGEST_FILE_NAME).write_bytes(digest_line(folder / WEIGHTS_FILE_NAME))


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def pickled(_: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("W1.npy", "w") as entry:
        objects = np.array([{"a": 1}], object)
        np.lib.format.write_array(entry, objects, (1, 0), allow_pickle=True)
    return file.getvalue()


def bomb(_: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W1.npy", bytes(50_000_000))
    return file.getvalue()


def grow(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)  # takes no disk


KINDS: dict[str, tuple[Breaks, str]] = {
    "cut off": (with_bytes(lambda data: data[:-1]), "expected the SHA-256"),
    "cut off, signed": (signed(with_bytes(lambda data: data[:-50])), "but it is damaged: "),
    "empty": (signed(with_bytes(lambda _: b"")), "damaged: "),
    "a bit flipped": (with_bytes(lambda data: flipped(data, 900)), "expected the SHA-256"),
    "a bit flipped, signed": (signed(with_bytes(lambda data: flipped(data, 180))), "Bad CRC-32"),
    "no archive": (signed(with_bytes(lambda _: b"nothing of ours")), "File is not a zip file"),
    "a pickle": (signed(with_bytes(lambda _: pickle.dumps({"a": 1}))), "not a zip file"),
    "a pickle inside": (signed(with_bytes(pickled)), "got pickled objects, which are never read"),
    "a zip bomb": (signed(with_bytes(bomb)), "expected it uncompressed"),
    "NaN": (with_arrays(lambda a: a["W1"].__setitem__((0, 0), np.nan)), "got NaN or infinity"),
    "too large": (with_arrays(lambda a: a.update(W2=a["W2"] + np.float32(1e38))), "sums may reach"),
    "shapes that do not fit": (with_arrays(lambda a: a.update(W2=a["W2"].T)), "expected"),
    "a layer too few": (with_arrays(lambda a: a.pop("b2")), "missing are ['b2']"),
    "float64": (with_arrays(lambda a: a.update(W1=a["W1"].astype("f8"))), "got float64"),
    "no metadata": (with_arrays(lambda a: a.pop("metadata")), "'metadata' is missing"),
    "JSON that is none": (with_arrays(lambda a: a.update(metadata=np.array("{"))), "expected JSON"),
    "other weights than the golden samples'": (
        with_arrays(lambda a: a.update(W1=a["W1"] * 2)),
        "self-test: expected the probabilities of the golden samples, got one off by",
    ),
    "another version": (
        lambda folder, model: with_arrays(
            lambda a: a.update(metadata=np.array(replace(model.metadata, version=9).to_json()))
        )(folder, model),
        "its file says that it is tiny version 9; publish versions, do not copy them",
    ),
    "half copied": (in_its_place(lambda _: None), "weights.npz is missing"),
    "a folder": (in_its_place(Path.mkdir), "expected a file, got a folder, a pipe or a device"),
    "a pipe": (in_its_place(os.mkfifo), "expected a file, got a folder, a pipe or a device"),
    "a device": (in_its_place(lambda p: p.symlink_to("/dev/zero")), "expected a file, got a"),
    "a link to itself": (
        in_its_place(lambda p: p.symlink_to(p.name)),
        "Too many levels of symbolic",
    ),
    "a link to nowhere": (in_its_place(lambda p: p.symlink_to("none")), "weights.npz is missing"),
    "10 GiB": (in_its_place(grow), "expected a weights file of at most 268435456 bytes, got 1073"),
    "a digest that is none": (
        in_its_place(lambda p: p.write_text("0"), DIGEST_FILE_NAME),
        "weights.npz.sha256: expected one line of 64 hexadecimal digits",
    ),
    "a digest that is a pipe": (
        in_its_place(os.mkfifo, DIGEST_FILE_NAME),
        "weights.npz.sha256: expected a file, got a folder, a pipe or a device",
    ),
}


def put(models: Path, model: Model, version: int, breaks: Breaks) -> None:
    """Have a broken version appear in one step, as a trainer's does."""
    staged = models.parent / "staged"
    publish(staged, model)
    numbered = replace(model, metadata=replace(model.metadata, version=version))
    folder = staged / model.metadata.name / "1"
    with_arrays(lambda _: None)(folder, numbered)
    breaks(folder, numbered)
    folder.rename(models / model.metadata.name / str(version))


def is_one_sentence(reason: str, models: Path) -> bool:
    return "\n" not in reason and str(models) not in reason and len(reason) < 500


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_broken_version_is_never_served_and_says_why(
    models: Path, proven: Model, serve_folder: Callable[..., Any], kind: str
) -> None:
    breaks, expected = KINDS[kind]
    publish(models, proven)
    set_label(models, "tiny", "stable", 1)
    local = serve_folder(models)
    put(models, proven, 2, breaks)
    set_label(models, "tiny", "stable", 2)
    for found in (local, serve_folder(models)):
        assert found.reloaded() == {"tiny": [1]}
        assert found.registry.find("tiny", 0).metadata.version == 1
        (reason,) = found.registry.models["tiny"].quarantined.values()
        assert expected in reason
        assert is_one_sentence(reason, models)


def test_a_good_version_passes_where_the_broken_ones_fail(
    models: Path, proven: Model, serve_folder: Callable[..., Any]
) -> None:
    publish(models, proven)
    put(models, proven, 2, lambda _folder, _model: None)
    assert serve_folder(models).served == {"tiny": [2, 1]}


def test_a_server_that_meets_all_of_them_goes_on_answering(
    models: Path, proven: Model, start_server: Callable[..., Server]
) -> None:
    publish(models, proven)
    server = start_server(versions="1")
    with Client(server.address) as client:
        before = client.predict(IMAGES, model="tiny").probabilities
        for version, (breaks, _) in enumerate(KINDS.values(), start=4):
            put(models, proven, version, breaks)
        assert server.lifecycle is not None
        server.lifecycle.controller.reload()
        found = client.predict(IMAGES, model="tiny")
        assert found.model_version == 3
        np.testing.assert_array_equal(found.probabilities, before)
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        listed = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    reasons = {each.version: each.reason for each in listed.models[0].quarantined_versions}
    for version, (_, expected) in enumerate(KINDS.values(), start=4):
        if "another version" not in expected:
            assert expected in reasons[version]
    assert all(is_one_sentence(reason, models) for reason in reasons.values())


@pytest.mark.parametrize("is_signed", [False, True], ids=["digest left", "digest renewed"])
def test_wherever_a_file_is_cut_off_it_is_not_served(
    models: Path, proven: Model, serve_folder: Callable[..., Any], *, is_signed: bool
) -> None:
    published = publish(models, proven)
    path = weights_path(models, "tiny", published.metadata.version)
    good = path.read_bytes()
    path.write_bytes(b"")
    local = serve_folder(models)
    for length in [*range(1, len(good), 7), len(good) - 1]:
        path.write_bytes(good[:length])
        if is_signed:
            sign(path.parent)
        assert local.reloaded() == {"tiny": []}
    path.write_bytes(good)
    sign(path.parent)
    assert local.reloaded() == {"tiny": [1]}


@pytest.mark.parametrize("step", [12, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_wherever_a_bit_is_flipped_the_answers_are_right_or_there_are_none(
    models: Path, proven: Model, serve_folder: Callable[..., Any], step: int
) -> None:
    publish(models, proven)
    path = weights_path(models, "tiny", 1)
    good = path.read_bytes()
    path.write_bytes(b"")
    local = serve_folder(models)
    expected = answers(CompiledModel(proven))
    served = 0
    for position in range(0, len(good), step):
        path.write_bytes(flipped(good, position))
        sign(path.parent)  # so that only the other checks are left
        local.controller.reload()
        for model in local.registry.models["tiny"].versions:
            # A date, say, or a flag of the archive, which change nothing.
            served += 1
            assert answers(model) == expected
        path.write_bytes(b"")
        path.parent.rename(models / "tiny" / ".away")  # so that the next is not its successor
        local.controller.reload()
        (models / "tiny" / ".away").rename(path.parent)
    assert served < len(good) / step / 10


def answers(model: CompiledModel) -> bytes:
    return model.classify([IMAGES.reshape(-1, 6)], Workspace()).probabilities.tobytes()


def test_a_file_that_grows_as_it_is_copied_is_served_when_it_is_whole(
    models: Path, proven: Model, serve_folder: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    publish(models, proven)
    path = weights_path(models, "tiny", 1)
    good = path.read_bytes()
    (path.parent / DIGEST_FILE_NAME).unlink()
    path.unlink()
    local = serve_folder(models)
    with path.open("wb") as file:
        for start in range(0, len(good), 500):
            assert local.reloaded() == {"tiny": []}
            file.write(good[start : start + 500])
            file.flush()
    assert local.reloaded() == {"tiny": [1]}
    reasons = {record.getMessage() for record in caplog.records}
    assert len(reasons) == len([r for r in caplog.records if r.levelname == "ERROR"]) <= 4


def test_the_digest_is_that_of_what_is_served(
    models: Path, proven: Model, serve_folder: Callable[..., Any]
) -> None:
    publish(models, proven)
    local = serve_folder(models)
    (snapshot,) = local.controller._snapshots.served.values()  # noqa: SLF001 - no public way
    path = weights_path(models, "tiny", 1)
    assert snapshot.digest == hashlib.sha256(path.read_bytes()).hexdigest()
