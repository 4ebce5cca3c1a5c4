import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from mlpserve.model.digests import DIGEST_FILE_NAME, check_digest, read_digest
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import WEIGHTS_FILE_NAME
from mlpserve.model.versions import load_version, publish
from mlpserve.model.weights import Model, golden_samples, save_model

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def version(models: Path, tiny_models: None) -> Path:
    """Return the folder of a version that was published."""
    return models / "tiny" / "1"


def refusal(version: Path) -> str:
    with pytest.raises(WeightsFileError) as refused:
        check_digest(version)
    return str(refused.value)


def test_published_digest_is_that_of_the_weights_file(version: Path) -> None:
    content = (version / WEIGHTS_FILE_NAME).read_bytes()
    assert read_digest(version) == hashlib.sha256(content).hexdigest()
    check_digest(version)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_checks_it_and_writes_what_we_read(version: Path) -> None:
    check = ["sha256sum", "--check", "--strict", DIGEST_FILE_NAME]
    assert subprocess.run(check, cwd=version, check=False, capture_output=True).returncode == 0
    for mode in ("--text", "--binary"):
        write = ["sha256sum", mode, WEIGHTS_FILE_NAME]
        line = subprocess.run(write, cwd=version, check=True, capture_output=True).stdout
        (version / DIGEST_FILE_NAME).write_bytes(line)
        check_digest(version)


def test_version_without_a_digest_is_good(models: Path, version: Path) -> None:
    (version / DIGEST_FILE_NAME).unlink()
    assert read_digest(version) is None
    check_digest(version)
    assert load_version(models, "tiny", 1).metadata.version == 1


@pytest.mark.parametrize("offset", [0, 1, -1], ids=["first", "second", "last"])
def test_weights_of_which_a_bit_was_changed_are_refused(version: Path, offset: int) -> None:
    path = version / WEIGHTS_FILE_NAME
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    expected = read_digest(version)
    path.write_bytes(content)
    assert refusal(version) == (
        f"{path}: expected the SHA-256 {expected}, which weights.npz.sha256 has, got "
        f"{hashlib.sha256(content).hexdigest()}: the file was changed after it was published; "
        "publish the version anew"
    )


def test_other_weights_of_the_same_version_are_not_loaded(
    models: Path, version: Path, model: Model
) -> None:
    other = model.network.with_parameters([array / 2 for array in model.network.parameters])
    images = np.zeros((1, 2, 3), np.uint8)
    golden = golden_samples(other, model.metadata.input, images)
    save_model(version / WEIGHTS_FILE_NAME, Model(other, model.metadata, golden))
    with pytest.raises(WeightsFileError, match="the file was changed after it was published"):
        load_version(models, "tiny", 1)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        DIGEST,
        f"{DIGEST}\n",
        f"{DIGEST[:-1]}  weights.npz\n",
        f"{DIGEST}0  weights.npz\n",
        f"{DIGEST.upper()}  weights.npz\n",
        f"{DIGEST}  other.npz\n",
        f"{DIGEST}  weightsxnpz\n",
        f"{DIGEST} weights.npz\n",
        f"{DIGEST}  weights.npz\n\n",
        f"{DIGEST}  weights.npz\n{DIGEST}  weights.npz\n",
        "\0" * 77,
    ],
    ids=repr,
)
def test_malformed_digest_file_is_refused(version: Path, line: str) -> None:
    path = version / DIGEST_FILE_NAME
    path.write_text(line)
    assert refusal(version) == (
        f"{path}: expected one line of 64 hexadecimal digits, two spaces and weights.npz, as "
        f"sha256sum writes it, got {line[:80]!r}"
    )


def test_endless_digest_file_is_refused(version: Path) -> None:
    path = version / DIGEST_FILE_NAME
    os.truncate(path, 2**40)  # so far as it can be seen: it takes no disk
    assert refusal(version).startswith(f"{path}: expected one line of 64 hexadecimal digits")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    version: Path, make: Callable[[Path], None]
) -> None:
    path = version / DIGEST_FILE_NAME
    path.unlink()
    make(path)
    assert refusal(version) == f"{path}: expected a file, got a folder, a pipe or a device"


@pytest.mark.parametrize("name", [DIGEST_FILE_NAME, WEIGHTS_FILE_NAME])
def test_file_without_permission_is_refused(
    public_folder: Path,
    model: Model,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
    name: str,
) -> None:
    publish(public_folder, model)
    path = public_folder / "tiny" / "1" / name
    path.chmod(0)
    with as_ordinary_user():
        assert refusal(path.parent) == f"{path}: cannot be read: Permission denied"
