import json
from pathlib import Path

import pytest

from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

WRITTEN_BY_US = ["weights.npz", "weights.npz.sha256"]


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_attachments_appear_beside_the_weights_and_know_the_number(
    models: Path, model: Model
) -> None:
    def attachments(numbered: Model) -> dict[str, bytes]:
        told.append((numbered.metadata.name, numbered.metadata.version))
        return {"report.html": b"<p>", "notes": json.dumps(told).encode()}

    told: list[tuple[str, int]] = []
    for _ in range(2):
        publish(models, model, attachments=attachments)
    assert told == [("tiny", 1), ("tiny", 2)]
    for number in (1, 2):
        folder = models / "tiny" / str(number)
        assert everything_in(folder) == ["notes", "report.html", *WRITTEN_BY_US]
        assert (folder / "report.html").read_bytes() == b"<p>"
        assert len(json.loads((folder / "notes").read_text())) == number


def test_attachments_of_a_number_that_is_taken_meanwhile_are_made_anew(
    models: Path, model: Model
) -> None:
    def slow_attachments(numbered: Model) -> dict[str, bytes]:
        number = numbered.metadata.version
        if number == 1:
            publish(models, model)  # another writer, just before this one
        return {f"of-{number}": b""}

    assert publish(models, model, attachments=slow_attachments).metadata.version == 2
    assert everything_in(models / "tiny" / "1") == WRITTEN_BY_US
    assert everything_in(models / "tiny" / "2") == ["of-2", *WRITTEN_BY_US]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", ".hidden", "a\0", *WRITTEN_BY_US, "Weights.NPZ"]
)
def test_attachment_without_a_plain_name_is_refused(models: Path, model: Model, name: str) -> None:
    with pytest.raises(ValueError, match="as a file's name, and not weights.npz or "):
        publish(models, model, attachments=lambda _: {"good": b"", name: b""})
    assert everything_in(models) == ["tiny"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ZeroDivisionError()])
def test_error_of_an_attachment_is_its_own_and_nothing_is_published(
    models: Path, model: Model, error: Exception
) -> None:
    def attachments(_: Model) -> dict[str, bytes]:
        raise error

    with pytest.raises(type(error)) as raised:
        publish(models, model, attachments=attachments)
    assert raised.value is error
    assert everything_in(models) == ["tiny"]
