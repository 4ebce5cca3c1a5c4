"""Settings from flags, variables and a file: who comes first, and what is said of mistakes."""

import argparse
import contextlib
import json
import re
import runpy
import tomllib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.server.__main__ import main
from mlpserve.server.errors import StartError
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.settings.fields import settings_of
from mlpserve.server.settings.sources import (
    add_flags,
    as_toml,
    link_variables,
    read_settings,
    unknown_variables,
)

REPOSITORY = Path(__file__).parents[3]


def configured(
    *flags: str, environment: Mapping[str, str] | None = None
) -> tuple[ServerConfig, str]:
    """Return the settings that the sources give, and how they are printed."""
    parser = argparse.ArgumentParser()
    add_flags(parser, ServerConfig)
    options = vars(parser.parse_args(flags))
    config, sources = read_settings(ServerConfig, options, environment or {})
    return config, as_toml(config, sources)


def test_a_flag_comes_before_a_variable_before_the_file_before_the_default(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("workers = 2\nthreads = 2\nport = 2\n")
    environment = {"MLPSERVE_WORKERS": "3", "MLPSERVE_THREADS": "3", "MLPSERVE_CONFIG": str(file)}
    config, printed = configured("--workers", "4", environment=environment)
    assert (config.workers, config.threads, config.port) == (4, 3, 2)
    assert config.max_batch_images == ServerConfig.max_batch_images
    assert "workers = 4  # --workers\n" in printed
    assert "threads = 3  # MLPSERVE_THREADS\n" in printed
    assert f"port = 2  # {file}: port\n" in printed
    assert "max_batch_images = 8192  # default\n" in printed


def test_a_switch_is_turned_on_and_off_from_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("pin = false\nreproducible = true\n")
    config, _ = configured("--config", str(file))
    assert (config.pin, config.reproducible) == (False, True)
    config, _ = configured("--config", str(file), environment={"MLPSERVE_PIN": "Yes"})
    assert config.pin
    config, _ = configured("--no-reproducible", "--config", str(file))
    assert not config.reproducible


def test_a_variable_that_is_empty_counts_as_not_set() -> None:
    config, _ = configured(environment={"MLPSERVE_PORT": "", "MLPSERVE_CONFIG": ""})
    assert config.port == ServerConfig.port


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(
    host=texts, models=texts, stop_grace_s=st.floats(0, 1e300), workers=st.integers(0, 2**31 - 1)
)
def test_what_is_printed_is_a_file_that_gives_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory,
    host: str,
    models: str,
    stop_grace_s: float,
    workers: int,
) -> None:
    config = replace(
        ServerConfig(), host=host, models=Path(models), stop_grace_s=stop_grace_s, workers=workers
    )
    file = tmp_path_factory.getbasetemp() / "printed.toml"
    file.write_text(as_toml(config, {}), encoding="utf-8")
    assert configured("--config", str(file))[0] == config


def test_all_mistakes_are_named_at_once_each_with_where_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("threads = 1.5\nhost = ''\n")
    monkeypatch.setenv("MLPSERVE_PIN", "perhaps")
    monkeypatch.setenv("MLPSERVE_STOP_GRACE_S", "x")
    assert main(["--port", "65536", "--config", str(file)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"mlpserve-serve: {file}: host: expected a text that is not empty, got ''",
        "mlpserve-serve: --port: expected a whole number, from 0 to 65535, got '65536'",
        f"mlpserve-serve: {file}: threads: expected a whole number, at least 1, got '1.5'",
        "mlpserve-serve: MLPSERVE_PIN: expected true or false, got 'perhaps'",
        "mlpserve-serve: MLPSERVE_STOP_GRACE_S: expected a number of seconds, at least 0, got 'x'",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("worker = 2", "there is no setting 'worker'; did you mean 'workers'?"),
        ("x = 1\ny = 2", "there is no setting 'x'\n{file}: there is no setting 'y'"),
        ("workers = ", "expected TOML: Invalid value (at end of document)"),
        ("[server]\nport = 1", "there is no setting 'server'"),
        ("models = ['a']", "models: expected a path or a URL, got \"['a']\""),
    ],
)
def test_a_file_that_cannot_be_used_is_said_to_be(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(content)
    with pytest.raises(StartError) as caught:
        configured("--config", str(file))
    assert str(caught.value) == f"{file}: {message.format(file=file)}"


def test_a_file_that_is_missing_or_no_text_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="missing.toml: cannot be read: No such file"):
        configured("--config", str(tmp_path / "missing.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match="binary.toml: expected TOML: 'utf-8' codec"):
        configured("--config", str(tmp_path / "binary.toml"))
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(2 << 20)
    with pytest.raises(StartError, match="large.toml: expected a file of settings, got over"):
        configured("--config", str(tmp_path / "large.toml"))


def test_a_misspelt_variable_is_pointed_out_and_those_of_other_programs_are_not() -> None:
    environment = {"MLPSERVE_WORKRES": "2", "MLPSERVE_DATA_DIR": "data", "MLPSERVE_PORT": "1"}
    assert unknown_variables(ServerConfig, environment) == [
        "MLPSERVE_WORKRES: there is no such setting; did you mean 'MLPSERVE_WORKERS'?"
    ]


LINKS = {
    "MLPSERVE_PORT": "tcp://10.0.0.1:50051",
    "MLPSERVE_SERVICE_HOST": "10.0.0.1",
    "MLPSERVE_SERVICE_PORT": "50051",
    "MLPSERVE_SERVICE_PORT_GRPC": "50051",
    "MLPSERVE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
    "MLPSERVE_PORT_50051_TCP_ADDR": "10.0.0.1",
    "MLPSERVE_PORT_50051_TCP_PORT": "50051",
    "MLPSERVE_PORT_50051_TCP_PROTO": "tcp",
    # Of Services called mlpserve-http and mlpserve-metrics.
    "MLPSERVE_HTTP_PORT": "tcp://[fd00::1]:80",
    "MLPSERVE_HTTP_SERVICE_HOST": "fd00::1",
    "MLPSERVE_HTTP_SERVICE_PORT": "80",
    "MLPSERVE_METRICS_PORT": "udp://10.0.0.3:9090",
}


def test_variables_that_kubernetes_injects_for_a_service_are_no_settings(tmp_path: Path) -> None:
    assert link_variables(LINKS) == list(LINKS)
    assert unknown_variables(ServerConfig, LINKS) == []
    assert configured(environment=LINKS)[0] == ServerConfig()
    file = tmp_path / "server.toml"
    file.write_text("port = 7\n")
    config, printed = configured("--config", str(file), environment=LINKS)
    assert config.port == 7
    assert f"port = 7  # {file}: port\n" in printed


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLPSERVE_PORT", "tcp://"), ("MLPSERVE_PORT", "x"), ("MLPSERVE_WORKERS", "tcp://a:1")],
)
def test_values_that_kubernetes_does_not_inject_are_mistakes(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"{name}: expected a whole number"):
        configured(environment={name: value})


def test_injected_variables_are_told_once_at_debug_level(
    monkeypatch: pytest.MonkeyPatch,
    run_server: Callable[..., AbstractContextManager[Any]],
    tiny_models: None,
) -> None:
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    with run_server("--workers", "1", "--log-level", "debug") as server:
        server.stop()
    told = [line for line in server.lines if "MLPSERVE_" in line]
    assert len(told) == 1
    assert "debug" in told[0].lower()
    assert all(name in told[0] for name in LINKS)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--max-streams", "14"],
            "--max-streams: expected at most 12, 4 less than request_threads",
        ),
        (["--request-threads", "4", "--max-streams", "2"], "--max-streams: expected at most 1, 3"),
        (["--tls-key", "key"], "tls_certificate, tls_key: expected both or neither"),
        (["--split", "a=1,a=2"], "--split: expected labels, each once"),
        (["--versions", ""], "--versions: expected a text that is not empty, got ''"),
        (["--versions", "ftp://key:geheim@host"], "--versions: expected a number N for the newest"),
        (["--split-header", "X Y"], "--split-header: expected lower-case letters"),
    ],
    ids=str,
)
def test_what_no_setting_means_or_goes_with_no_other_is_named_by_its_source(
    flags: list[str], message: str
) -> None:
    with pytest.raises(StartError) as caught:
        configured(*flags)
    assert str(caught.value).startswith(message)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("versions", ["2", "all", "1,4,7", "7,", "3 digits=all letters=1,4,7"])
def test_settings_are_the_same_when_a_worker_has_got_them(versions: str) -> None:
    config, printed = configured("--versions", versions, "--split", "stable=95, canary=5")
    assert ServerConfig(**json.loads(json.dumps(config.to_plain()))) == config
    assert f'versions = "{versions}"  # --versions\n' in printed
    assert 'split = "stable=95,canary=5"  # --split\n' in printed


def test_print_config_prints_all_settings_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workers", "3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed)["workers"] == 3
    for setting in settings_of(ServerConfig):  # one without a value as a comment
        assert re.search(rf"^(# )?{setting.name} = ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--models", "ftp://key:geheim@host/models?sig=geheim", "--print-config"],
        ["--models", "ftp:/key:geheim@host/models", "--print-config"],
        ["--models", "cache::ftp://key:geheim@host/models", "--print-config"],
        ["--port", "ftp://key:geheim@host/models"],
        ["ftp://key:geheim@host/models"],
        ["--modles=ftp://key:geheim@host/models?geheim"],
    ],
    ids=" ".join,
)
def test_secrets_of_urls_are_neither_printed_nor_repeated_where_they_are_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        main(arguments)
    printed = "".join(capsys.readouterr())
    assert "***@" in printed
    assert "geheim" not in printed


def test_the_document_has_the_table_of_all_settings() -> None:
    document = (REPOSITORY / "docs" / "configuration.md").read_text()
    program = runpy.run_path(str(REPOSITORY / "docs" / "tables.py"))
    assert document == program["with_current_table"]("configuration.md"), "run `make tables`"
