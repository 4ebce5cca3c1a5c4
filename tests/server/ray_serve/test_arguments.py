"""Arguments of the application for Ray Serve; nothing here needs Ray."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from mlpserve.server.errors import StartError
from mlpserve.server.ray_serve import app
from mlpserve.server.ray_serve.arguments import read_arguments

REPOSITORY = Path(__file__).parents[3]


def test_texts_of_a_command_line_and_values_of_a_file_mean_the_same() -> None:
    texts = {"models": "/models", "max_replicas": "8", "num_cpus": "0.5", "reproducible": "true"}
    values = {"models": "/models", "max_replicas": 8, "num_cpus": 0.5, "reproducible": True}
    replicas, config = read_arguments(texts)
    assert (replicas, config) == read_arguments(values)
    assert (replicas.max_replicas, replicas.num_cpus) == (8, 0.5)
    assert (config.models, config.reproducible) == (Path("/models"), True)


def test_a_version_can_be_pinned() -> None:
    _, config = read_arguments({"models": "/models", "versions": "digits=3,"})
    assert list(config.versions.of_models["digits"].choose([4, 3, 2])) == [3]


def test_the_page_has_a_current_table_of_the_arguments() -> None:
    program = runpy.run_path(str(REPOSITORY / "docs" / "tables.py"))
    document = (REPOSITORY / "docs" / "ray-serve.md").read_text()
    assert document == program["with_current_table"]("ray-serve.md"), "run `make tables`"


def test_a_url_of_a_store_is_taken_as_it_is() -> None:
    _, config = read_arguments({"models": "s3://bucket/models"})
    assert config.models == "s3://bucket/models"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {},
            "models: expected the absolute path of a folder that all nodes have, or a URL, got ''",
        ),
        ({"models": "models"}, "that all nodes have, or a URL, got 'models'"),
        ({"models": "/m", "modles": "x"}, "no setting 'modles'; did you mean 'models'?"),
        ({"models": "/m", "port": 9000}, "port: expected no such argument, Ray Serve has its own"),
        ({"models": "/m", "allow_management": True}, "would change one replica of several"),
        ({"models": "/m", "max_replicas": "many"}, "max_replicas: expected a whole number, at"),
        ({"models": "/m", "num_cpus": -1}, "num_cpus: expected a number, at least 0, got '-1'"),
        ({"models": "/m", "max_batch_rows": 0}, "max_batch_rows: expected a whole number"),
        (
            {"models": "/m", "min_replicas": 5, "max_replicas": 2},
            "min_replicas: expected at most max_replicas, 2, got 5",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StartError) as caught:
        read_arguments(arguments)
    assert sentence in str(caught.value)


def test_the_password_of_a_misspelt_url_is_not_repeated() -> None:
    with pytest.raises(StartError) as caught:
        read_arguments({"models": "s3:/key:secret-word@bucket/models"})
    assert "secret-word" not in str(caught.value)


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mlpserve\[ray,server\]'"):
        app({"models": "/models"})
