"""docs/batch.md: each engine's answers are, to the bit and in their rows, those of one machine."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import pyspark
import pytest

from mlpserve.client.__main__ import main as predict
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
TIMEOUT_S: Final = 600  # a busy machine takes minutes to start a cluster
SIZES: Final = (784, 32, 10)
# What is refused is told the same way wherever it is found.
NULL: Final = "column 'image': row 1 of the batch, from 0: expected a value, got null"

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


def programs(title: str) -> list[str]:
    """Return the programs of a section of the page."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(metadata: Metadata, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, the page's images, and one machine's answers to them."""
    folder = tmp_path_factory.mktemp("batch")
    described = replace(
        metadata,
        name="digits",
        layer_sizes=SIZES,
        input=InputSpec((28, 28)),
        class_labels=tuple("0123456789"),
    )
    publish(folder / "models", Model(random_network(), described))
    shown, made = programs("The function")
    assert run(shown, folder) == "(5,) (5, 10)\n"
    run(made, folder)
    places = [str(folder / name) for name in ("models", "images.parquet", "answers.parquet")]
    assert predict(["--models", places[0], places[1], "--output", places[2]]) == 0
    assert len(set(answers(folder / "answers.parquet")[0])) > 1
    return folder


def random_network() -> Network:
    rng = np.random.default_rng(8)
    weights = [
        rng.normal(0, (2 / fan_in) ** 0.5, (fan_in, fan_out)).astype(np.float32)
        for fan_in, fan_out in pairwise(SIZES)
    ]
    biases = [np.zeros(width, np.float32) for width in SIZES[1:]]
    return Network(tuple(map(Layer, weights, biases, ("tanh", "softmax"))))


def run(program: str, folder: Path, **environment: str) -> str:
    """Run a program in a folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def answers(path: Path) -> tuple[list[str], bytes, bytes]:
    """Return the labels, and the bits of all probabilities, in the order of the images."""
    table = pq.read_table(path)
    if "id" in table.column_names:
        table = table.sort_by("id")
        assert table["id"].to_pylist() == list(range(3000))
    probabilities = np.array(table["probabilities"].to_pylist(), np.float32)
    assert probabilities.shape == (3000, 10)
    return (
        table["label"].to_pylist(),
        table["probability"].to_numpy().astype(np.float32).tobytes(),
        probabilities.tobytes(),
    )


CAUGHT = """
def said(job):
    try:
        job()
    except Exception as error:
        return " ".join(str(error).split())
    return "nothing"
"""


JOBS: Final = {
    "polars": "lambda: pl.from_arrow(bad).select(predicted)",
    "DuckDB": "lambda: database.sql('SELECT classify(image) FROM bad').fetchall()",
    "pyarrow": "lambda: list(map(classify, bad.to_batches()))",
}


@pytest.mark.parametrize("engine", JOBS)
def test_an_engine_on_one_machine_answers_as_the_command_does(folder: Path, engine: str) -> None:
    (program,) = programs(engine)
    more = f"""
import pyarrow as pa
bad = pa.table({{"image": pa.array([[1] * 784, [1] * 783], pa.list_(pa.uint8()))}})
{CAUGHT}
print(said({JOBS[engine]}))
"""
    refused = run(program + more, folder)
    found = answers(folder / f"{engine.lower()}-answers.parquet")
    assert found == answers(folder / "answers.parquet")
    assert "row 1 of the batch, from 0: expected a list of 784 values, got one of 783" in refused


def test_duckdb_leaves_out_what_is_null(folder: Path) -> None:
    (program,) = programs("DuckDB")
    more = """
import pyarrow as pa
gaps = pa.table({"id": [1, 2], "image": pa.array([[1] * 784, None], pa.list_(pa.uint8()))})
print(database.sql("SELECT id, classify(image).label IS NULL FROM gaps").fetchall())
"""
    assert run(program + more, folder).endswith("[(1, False), (2, True)]\n")


def test_two_executors_of_spark_answer_as_the_command_does(folder: Path, tmp_path: Path) -> None:
    (program,) = programs("Spark")
    more = f"""
import numpy, pandas
infos = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
print("executors:", len(infos) - 1)
def in_pandas(frames):
    for frame in frames:
        found = classify.predict(numpy.stack(frame["image"]))
        yield pandas.DataFrame({{"id": frame["id"], "index": found.labels}})
same = images.mapInPandas(in_pandas, "id bigint, index int").join(answers, "id")
print("alike:", same.where("cast(index as string) = label").count())
{CAUGHT}
bad = spark.createDataFrame([(1, b"1" * 784), (2, None)], "id int, image binary").coalesce(1)
print(said(bad.mapInArrow(lambda batches: map(classify, batches), f"id int, {{answer}}").collect))
"""
    printed = run(program + more, folder, **spark_environment(tmp_path))
    assert "executors: 2" in printed
    assert "alike: 3000" in printed
    assert f"mlpserve.model.errors.ImagesError: {NULL}" in printed
    counted = dict(re.findall(r"^\d+ +(\d) +(\d+)$", printed, re.MULTILINE))
    expected = answers(folder / "answers.parquet")
    assert counted == {label: str(expected[0].count(label)) for label in set(expected[0])}
    assert answers(folder / "spark-answers") == expected


def spark_environment(folder: Path) -> dict[str, str]:
    """Return what has Spark start two executors, whose files are all in a folder."""
    # It writes the executors' logs below its own folder.
    home = folder / "spark"
    home.mkdir()
    for entry in Path(pyspark.__path__[0]).iterdir():
        if entry.name != "work":
            (home / entry.name).symlink_to(entry)
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.network.timeout": "600s",
        # No job begins before both executors are there, however late.
        "spark.cores.max": "2",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "600s",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.sql.shuffle.partitions": "2",
        "spark.task.maxFailures": "1",
        "spark.ui.enabled": "false",
    }
    given = " ".join(f"--conf {name}={value}" for name, value in settings.items())
    return {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": f"--master local-cluster[2,1,1024] {given} pyspark-shell",
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_DIRS": str(folder),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def test_tasks_and_actors_of_ray_answer_as_the_command_does(folder: Path) -> None:
    tasks, actors = programs("Ray Data")
    before = """
import ray
size = {"num_cpus": 4, "object_store_memory": 100_000_000}
ray.init(**size, include_dashboard=False, log_to_driver=False, _temp_dir=FOLDER)
"""
    more = f"""
import pyarrow as pa, numpy, os
{CAUGHT}
def refused(data, function=classify, **options):
    return said(data.map_batches(function, batch_format="pyarrow", **options).take_all)
gaps = pa.table({{"id": [1, 2], "image": pa.array([b"1" * 784, None], pa.binary())}})
print(refused(ray.data.from_arrow(gaps)))
other = {{"fn_constructor_kwargs": {{**wanted, "digest": "0" * 64}}}}
print(refused(images, ModelFunction, compute=ActorPoolStrategy(size=1), **other))
tensors = ray.data.from_numpy(numpy.zeros((20, 28, 28), "uint8"))
pictures = tensors.rename_columns({{"data": "image"}})
print("tensors:", len(pictures.map_batches(classify, batch_format="pyarrow").take_all()))
ray.shutdown()
"""
    # Of a short name, because the paths of its sockets must be short.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own:
        started = before.replace("FOLDER", repr(own))
        printed = run(started + tasks + actors + more, folder)
    expected = answers(folder / "answers.parquet")
    assert answers(folder / "ray-answers") == expected
    assert answers(folder / "ray-actors-answers") == expected
    assert NULL in printed
    assert f"weights.npz: expected the SHA-256 {'0' * 64}, got " in printed
    assert "this is not the version that the job was begun with" in printed
    assert "tensors: 20" in printed
