"""Engines of data platforms with the model as their function, beside one process of the command.

    .venv-distributed/bin/python benchmarks/data_platforms.py --output docs/batch.md

Takes two minutes on two processors that have nothing else to do. Spark and Ray are started before
anything is timed, and each engine runs once unmeasured; then they take turns. Each reads the same
Parquet file and writes Parquet; afterwards the answers are compared, to the bit.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyspark
from pyspark.sql import SparkSession

from harness.errors import BenchmarkError
from harness.figures import Spread, ratios
from harness.machine import describe_machine
from harness.noise import NoiseMeter
from harness.rounds import interleave
from harness.tables import check_output, markdown_table, write_section
from mlpserve.client.__main__ import main as predict
from mlpserve.datasets.drawn import draw_digits
from mlpserve.model.function import ModelFunction
from servers.networks import publish_random

_SECTION: Final = "data platforms"
_NETWORK: Final = (784, 128, 10)
_COMMAND: Final = "`mlpserve-predict --models`, one process"
_ROW_GROUP: Final = 10_000
_SPARK_ANSWER: Final = "label string, probability float, probabilities array<float>"
_POLARS_ANSWER: Final = pl.Struct(
    {"label": pl.String, "probability": pl.Float32, "probabilities": pl.List(pl.Float32)}
)
_DUCKDB_ANSWER: Final = "STRUCT(label VARCHAR, probability FLOAT, probabilities FLOAT[])"

# Takes the table of images, and where the answers go.
Engine = Callable[[Path, Path], object]


def main() -> int:
    """Run it; print the table, or write it into a document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; default: 3")
    parser.add_argument("--engines", nargs="+", choices=_ENGINES, default=list(_ENGINES))
    parser.add_argument("--output", type=Path, help="document with the section that is replaced")
    options = parser.parse_args()
    if options.output is not None:
        check_output(options.output, _SECTION)
    with tempfile.TemporaryDirectory(prefix="mp-") as folder:
        content = _measured(Path(folder), options.engines, options.rows, options.repeats)
    if options.output is None:
        print(content)
    else:
        write_section(options.output, _SECTION, content)
    return os.EX_OK


def _measured(folder: Path, names: Sequence[str], rows: int, repeats: int) -> str:
    models, images = folder / "models", folder / "images.parquet"
    publish_random(models, _NETWORK)
    (model,) = models.iterdir()
    _write_images(images, rows)
    classify = ModelFunction(model)
    noise = NoiseMeter()
    with ExitStack() as started:
        engines = {_COMMAND: _command(models)}
        for title, prepare in (_ENGINES[name] for name in names):
            engines[title] = prepare(classify, folder, started)

        def measure(engine: str, number: int) -> float:
            noise.probe()
            began_s = time.perf_counter()
            engines[engine](images, folder / f"{number}-{list(engines).index(engine)}.parquet")
            return rows / (time.perf_counter() - began_s)

        speeds = interleave(list(engines), repeats + 1, measure)
    _check_answers(folder, len(engines))
    machine = describe_machine(("duckdb", "polars", "pyarrow", "pyspark", "ray", "numpy"))
    network = "-".join(map(str, _NETWORK))
    return (
        f"{_table({engine: values[1:] for engine, values in speeds.items()})}\n\n"
        f"Images/s of {rows:,} images of 28 x 28 bytes and a network of {network}: median, lowest "
        f"and highest of {repeats} rounds; ratios are those within a round. {machine.sentences()} "
        f"{noise.noise().sentences()}\n\nBy `python benchmarks/data_platforms.py`, in the "
        "environment of `make test-distributed`."
    )


def _table(speeds: Mapping[str, list[float]]) -> str:
    rows = [
        [
            engine,
            Spread.of(values).text(0),
            Spread.of(ratios(values, speeds[_COMMAND])).text(2),
        ]
        for engine, values in speeds.items()
    ]
    return markdown_table(["engine", "images/s", "times the command's"], rows)


def _write_images(path: Path, rows: int) -> None:
    digits = draw_digits(2000, seed=1).images.reshape(2000, -1)
    rng = np.random.default_rng(2)
    values = digits[rng.integers(0, len(digits), rows)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    pq.write_table(pa.table({"id": range(rows), "image": column}), path, row_group_size=_ROW_GROUP)


def _command(models: Path) -> Engine:
    def run(images: Path, answers: Path) -> None:
        if predict(["--models", str(models), str(images), "--output", str(answers)]):
            raise BenchmarkError("mlpserve-predict failed")

    return run


def _pyarrow(classify: ModelFunction, _: Path, __: ExitStack) -> Engine:
    def run(images: Path, answers: Path) -> None:
        table = ds.dataset(images)
        with pq.ParquetWriter(answers, classify.schema(table.schema)) as writer:
            for batch in table.to_batches(batch_size=_ROW_GROUP):
                writer.write_batch(classify(batch))

    return run


def _polars(classify: ModelFunction, _: Path, __: ExitStack) -> Engine:
    def run(images: Path, answers: Path) -> None:
        predicted = pl.col("image").map_batches(
            lambda column: pl.Series(classify.column(column)),
            return_dtype=_POLARS_ANSWER,
            is_elementwise=True,
        )
        answered = pl.scan_parquet(images).select("id", predicted.alias("answer"))
        answered.unnest("answer").sink_parquet(answers)

    return run


def _duckdb(classify: ModelFunction, _: Path, __: ExitStack) -> Engine:
    def run(images: Path, answers: Path) -> None:
        with duckdb.connect() as database:
            database.create_function(
                "classify", classify.column, ["UTINYINT[]"], _DUCKDB_ANSWER, type="arrow"
            )
            database.sql(
                f"COPY (SELECT id, unnest(classify(image)) FROM '{images}') TO '{answers}'"  # noqa: S608 - paths of ours
            )

    return run


def _spark(classify: ModelFunction, folder: Path, started: ExitStack) -> Engine:
    session = started.enter_context(_session(folder))

    def run(images: Path, answers: Path) -> None:
        table = session.read.parquet(str(images))
        schema = f"id bigint, {_SPARK_ANSWER}"
        table.mapInArrow(lambda batches: map(classify, batches), schema).write.parquet(str(answers))

    return run


def _ray(classify: ModelFunction, _: Path, started: ExitStack) -> Engine:
    data = started.enter_context(_cluster())

    def run(images: Path, answers: Path) -> None:
        table = data.read_parquet(str(images))
        table.map_batches(classify, batch_format="pyarrow").write_parquet(str(answers))

    return run


@contextmanager
def _session(folder: Path) -> Iterator[Any]:
    """Lend a session with two executors, whose files are all in a folder."""
    home = folder / "spark"
    home.mkdir()
    for entry in Path(pyspark.__path__[0]).iterdir():
        if entry.name != "work":  # where a cluster in one machine writes its logs
            (home / entry.name).symlink_to(entry)
    os.environ |= {
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_DIRS": str(folder),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").config(
        map={
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.execution.arrow.maxRecordsPerBatch": str(_ROW_GROUP),
            "spark.ui.enabled": "false",
        }
    )
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def _cluster() -> Iterator[Any]:
    """Lend Ray Data on a cluster of one node with two processors."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray.data  # noqa: PLC0415 - which reads it

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray.data
    finally:
        ray.shutdown()


def _check_answers(folder: Path, engines: int) -> None:
    """Check that the first answers of all engines are the same bits, row by row."""
    expected = _answers(folder / "0-0.parquet")
    for engine in range(1, engines):
        if _answers(folder / f"0-{engine}.parquet") != expected:
            raise BenchmarkError(f"engine {engine} answered otherwise than {_COMMAND}")


def _answers(path: Path) -> tuple[list[str], bytes]:
    table = pq.read_table(path)
    if "id" in table.column_names:
        table = table.sort_by("id")
    probabilities = np.array(table["probabilities"].to_pylist(), np.float32)
    return table["label"].to_pylist(), probabilities.tobytes()


# By the names that ``--engines`` knows: what the table calls it, and what makes it ready.
_ENGINES: Final[Mapping[str, tuple[str, Callable[[ModelFunction, Path, ExitStack], Engine]]]] = {
    "pyarrow": ("pyarrow", _pyarrow),
    "polars": ("polars", _polars),
    "duckdb": ("DuckDB", _duckdb),
    "spark": ("Spark, two executors", _spark),
    "ray": ("Ray Data, two processors", _ray),
}


if __name__ == "__main__":
    sys.exit(main())
