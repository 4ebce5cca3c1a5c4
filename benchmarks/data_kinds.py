"""Kinds of data: trains on each as people have it, and prints what it said and how good it became.

    python benchmarks/data_kinds.py --data-dir FOLDER_OF_MNIST

All files are made here, in a temporary folder. A row without scikit-learn is left out where that
is not installed. The table is Markdown.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mlpserve.datasets import Dataset, Split, load_dataset
from mlpserve.datasets.idx import idx_header

Array = npt.NDArray[Any]
NAMES: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE_PX: Final = 28


@dataclass(frozen=True)
class Kind:
    """A kind of data.

    Attributes:
        name: What it is.
        make: Makes it in a folder, and returns what ``--data`` is given.
        flags: What else is said.
    """

    name: str
    make: Callable[[Path, Dataset], Path | None]
    flags: tuple[str, ...] = ()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the four MNIST files")
    parser.add_argument("--images", type=int, default=20_000, help="to learn from; default: 20000")
    options = parser.parse_args()
    mnist = load_dataset("auto", data_dir=options.data_dir)
    digits = Dataset(
        mnist.name,
        mnist.class_labels,
        Split(mnist.train.images[: options.images], mnist.train.labels[: options.images]),
        Split(mnist.test.images, mnist.test.labels),
    )
    print("| data | command | what it said | test accuracy | by `mlpserve-predict --data` |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            row = table_row(kind, Path(folder), digits)
            if row is not None:
                print(row, flush=True)


def table_row(kind: Kind, folder: Path, digits: Dataset) -> str | None:
    """Train on a kind, and return its row of the table; None if it cannot be made here."""
    made = kind.make(folder, digits)
    if made is None:
        return None
    place = made.relative_to(folder)
    flags = ("--data", str(place), *kind.flags)
    train = ("mlpserve-train", *flags, "--name", "kind", "--log-format", "json", "--no-report")
    said, events = _run(train, folder)
    data = next(event for event in events if event["event"] == "data")
    published = next(event for event in events if event["event"] == "published")
    size = "x".join(str(side) for side in data["shape"])
    facts = f"{data['train_images']} + {data['test_images']} images of {size}"
    origin = f"; test images: {data['test_origin']}" if data["test_origin"] else ""
    texts = [event["text"] for event in events if event["event"] in {"range", "values", "warning"}]
    predict = ("mlpserve-predict", "--models", "models", "--model", "kind", *flags[:2])
    predict += tuple(flag for flag in flags if flag == "--transpose")
    spoken, _ = _run((*predict, "--output", "csv"), folder, keep=False)
    accuracy = re.search(r"accuracy ([\d.]+) %", spoken)
    return (
        f"| {kind.name} | `mlpserve-train {' '.join(flags)}` | "
        f"{'<br>'.join([facts + origin, *texts, *said.splitlines()])} | "
        f"{100 * published['test_accuracy']:.2f} % | {accuracy[1] if accuracy else '-'} % |"
    )


def _run(
    command: Sequence[str], folder: Path, *, keep: bool = True
) -> tuple[str, list[dict[str, Any]]]:
    """Run a program of ours; return what it wrote to standard error, and its events."""
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    events = [json.loads(line) for line in done.stdout.splitlines()] if keep else []
    return done.stderr.strip(), events


def fashion(folder: Path, digits: Dataset) -> Path:
    """Make ten kinds of cloth-like shapes, in files that are called as Fashion-MNIST's."""
    rng = np.random.default_rng(5)
    for split, count in (("train", len(digits.train)), ("t10k", 2000)):
        labels = rng.integers(0, 10, count)
        _write_idx(folder / "fashion", split, _garments(labels, rng), labels)
    return folder / "fashion"


def _garments(labels: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw a body and its sleeves, wider or narrower by class, in cloth of random greys."""
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
    count = len(labels)
    width = 3 + (labels % 5) * 1.6 + rng.normal(0, 0.7, count)
    height = 7 + (labels // 5) * 5 + rng.normal(0, 0.9, count)
    sleeve = rng.normal(4, 0.8, count) * (labels % 2)
    sleeve_px = 2
    body = (abs(columns) < width[:, None, None]) & (abs(rows) < height[:, None, None])
    arms = (abs(columns) < (width + sleeve)[:, None, None]) & (abs(rows + 5) < sleeve_px)
    cloth = rng.integers(90, 256, (count, 1, 1)) - rng.integers(0, 60, (count, SIDE_PX, SIDE_PX))
    return np.where(body | arms, cloth, 0).astype(np.uint8)


def scikit_learn(folder: Path, _: Dataset) -> Path | None:
    """Save the digits of scikit-learn, 8 x 8 values from 0 to 16, as its package has them."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - not among our requirements
    except ModuleNotFoundError:
        return None
    digits = load_digits()
    np.savez(folder / "digits.npz", allow_pickle=False, data=digits.data, target=digits.target)
    return folder / "digits.npz"


def competition(folder: Path, digits: Dataset) -> Path:
    """Write a competition's train.csv, and its test.csv without labels."""
    place = folder / "digit-recognizer"
    place.mkdir()
    pixels = [f"pixel{index}" for index in range(digits.train.images[0].size)]
    for name, split in (("train", digits.train), ("test", digits.test)):
        table: Array = split.images.reshape(len(split), -1)
        header = pixels
        if name == "train":
            table, header = np.column_stack([split.labels, table]), ["label", *pixels]
        path = place / f"{name}.csv"
        np.savetxt(path, table, "%d", delimiter=",", header=",".join(header), comments="")
    return place / "train.csv"


def emnist(folder: Path, digits: Dataset) -> Path:
    """Write files like EMNIST's letters: with rows and columns swapped, and labels from 1."""
    for split, images in (("train", digits.train), ("test", digits.test)):
        turned = np.asarray(images.images).swapaxes(1, 2)
        _write_idx(folder / "gzip", f"emnist-letters-{split}", turned, images.labels + 1)
    lines = [f"{number + 1} {65 + number} {97 + number}\n" for number in range(10)]
    (folder / "gzip" / "emnist-letters-mapping.txt").write_text("".join(lines))
    return folder / "gzip"


def pictures(folder: Path, digits: Dataset) -> Path:
    """Save pictures of several sizes, one folder a class."""
    for number, (image, label) in enumerate(zip(*_first(digits.train, 5000), strict=True)):
        place = folder / "pictures" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        side = 40 + number % 30
        Image.fromarray(image).resize((side, side)).save(place / f"{number}.png")
    return folder / "pictures"


def parquet(folder: Path, digits: Dataset) -> Path:
    """Save what the library datasets exports: encoded pictures, and classes with names."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(NAMES), "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    place = folder / "mnist-parquet"
    place.mkdir()
    for name, split in (("train", digits.train), ("test", digits.test)):
        images, labels = _first(split, 10_000)
        encoded = [{"bytes": _png(image), "path": None} for image in images]
        table = pa.table({"image": encoded, "label": labels}).replace_schema_metadata(metadata)
        pq.write_table(table, place / f"{name}-00000-of-00001.parquet")
    return place


def medmnist(folder: Path, digits: Dataset) -> Path:
    """Save entries as MedMNIST calls them, labels as (N, 1)."""
    parts = {"train": digits.train, "test": digits.test}
    arrays: dict[str, Array] = {f"{name}_images": split.images for name, split in parts.items()}
    arrays |= {f"{name}_labels": split.labels[:, np.newaxis] for name, split in parts.items()}
    np.savez(folder / "medmnist.npz", allow_pickle=False, **arrays)
    return folder / "medmnist.npz"


def shares(folder: Path, digits: Dataset) -> Path:
    """Save float images from -1 to 1, flat, without a test split."""
    images = digits.train.images.reshape(len(digits.train), -1) / np.float32(127.5) - 1
    np.savez(folder / "scaled.npz", allow_pickle=False, X=images, y=digits.train.labels)
    return folder / "scaled.npz"


def _first(split: Split, count: int) -> tuple[Array, Array]:
    return split.images[:count], split.labels[:count]


def _png(image: Array) -> bytes:
    with tempfile.SpooledTemporaryFile() as file:
        Image.fromarray(image).save(file, "PNG")
        file.seek(0)
        return file.read()


def _write_idx(folder: Path, split: str, images: Array, labels: Array) -> None:
    folder.mkdir(exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        values = array.astype(np.uint8)
        content = idx_header(values.shape) + values.tobytes()
        (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(content, 1))


KINDS: Final = (
    Kind("Fashion-MNIST's files, made data", fashion),
    Kind("scikit-learn's digits, 0 to 16", scikit_learn),
    Kind("a competition's CSV, made from MNIST", competition),
    Kind("EMNIST's files, made from MNIST", emnist, ("--transpose",)),
    Kind("a folder of pictures of several sizes", pictures, ("--shape", "28x28")),
    Kind("Parquet of Hugging Face's datasets", parquet),
    Kind("MedMNIST's npz entries", medmnist),
    Kind("flat floats from -1 to 1, no test split", shares),
)

if __name__ == "__main__":
    main()
