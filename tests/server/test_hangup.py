"""SIGHUP: certificates, tokens and models are looked at when an operator says so."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from mlpserve.server.security.tokens import new_token
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 60.0
RunServer = Callable[..., AbstractContextManager[Any]]


def write_certificate(folder: Path) -> bytes:
    """Write a certificate and its key; return that of the authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    return authority.cert_pem.bytes()


def write_token(folder: Path) -> str:
    token, line = new_token("billing")
    (folder / "tokens").write_text(line)
    return token


def hang_up(server: Any) -> None:
    os.kill(server.process.pid, signal.SIGHUP)
    server.wait_for_line("SIGHUP: looking at certificates, tokens and models")


def newest_version(channel: grpc.Channel) -> int:
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    (model,) = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models
    return max(version.version for version in model.versions)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_hangup_has_all_processes_take_over_certificates_and_tokens_before_anybody_calls(
    run_server: RunServer, tiny_models: None, tmp_path: Path, workers: int
) -> None:
    write_certificate(tmp_path)
    write_token(tmp_path)
    files = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    flags = [text for name, file in files.items() for text in (f"--tls-{name}", str(file))]
    tokens = ("--token-file", str(tmp_path / "tokens"))
    with run_server("--workers", str(workers), *flags, *tokens) as server:
        root, token = write_certificate(tmp_path), write_token(tmp_path)
        hang_up(server)
        # Processes log for themselves: some may have done so before the first had said why.
        while sum("taken over: " in line for line in server.lines) < 2 * workers:
            assert server.log_line(), server.lines
        credentials = grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(root), grpc.access_token_call_credentials(token)
        )
        target = f"localhost:{server.port}"
        override = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(target, credentials, override) as channel:
            assert newest_version(channel) == 2
        server.stop()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_hangup_has_models_looked_at_that_are_followed_only_on_request(
    run_server: RunServer, publish: Callable[..., None], workers: int
) -> None:
    publish("digits", versions=1)
    with run_server("--workers", str(workers), "--reload", "manual") as server:
        publish("digits", versions=1)
        with grpc.insecure_channel(server.address) as channel:
            assert newest_version(channel) == 1
            hang_up(server)
            deadline_s = time.monotonic() + TIMEOUT_S
            while newest_version(channel) != 2:
                assert time.monotonic() < deadline_s
        server.stop()


@pytest.mark.exhaustive
def test_hangups_by_the_dozen_end_nothing(run_server: RunServer, tiny_models: None) -> None:
    with run_server("--workers", "2") as server:
        for _ in range(12):
            for process_id in (server.process.pid, *server.workers()):
                os.kill(process_id, signal.SIGHUP)
        server.wait_for_line("SIGHUP: looking at certificates, tokens and models")
        with grpc.insecure_channel(server.address) as channel:
            assert newest_version(channel) == 2
        assert len(server.workers()) == 2
        server.stop()
