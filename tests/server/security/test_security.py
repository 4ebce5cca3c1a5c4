"""Authentication: TLS, mutual TLS and bearer tokens, on either adapter, with files that change."""

import hashlib
import hmac
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlpserve.server.__main__ import main
from mlpserve.server.errors import StartError, UnauthenticatedError
from mlpserve.server.healthcheck import health_problem
from mlpserve.server.security.reloading_files import ReloadingFiles
from mlpserve.server.security.tokens import Tokens, new_token
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S = 60.0
StartServer = Callable[..., Server]
REQUEST = prediction_pb2.PredictRequest(
    images=prediction_pb2.ImageBatch(
        count=1, data_type=prediction_pb2.DATA_TYPE_UINT8, data=bytes(6)
    )
)
STREAMED = prediction_pb2.PredictStreamRequest(images=REQUEST.images)


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the files of a server certificate that it signed."""

    ca: trustme.CA
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def root(self) -> bytes:
        return self.ca.cert_pem.bytes()

    def issue(self, name: str = "localhost") -> None:
        """Write a new certificate and its key over the old ones."""
        issued = self.ca.issue_cert(name)
        issued.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def caller(self) -> tuple[bytes, bytes]:
        """Return the key and the chain of a certificate for a caller."""
        issued = self.ca.issue_cert("caller")
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return issued.private_key_pem.bytes(), chain


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(trustme.CA(), tmp_path)
    made.issue()
    return made


def predict(channel: grpc.Channel, *, metadata: Any = None) -> prediction_pb2.PredictResponse:
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict(REQUEST, timeout=TIMEOUT_S, metadata=metadata)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def secure_channel(
    server: Server, root: bytes, identity: tuple[bytes | None, bytes | None] = (None, None)
) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(root, *identity)
    return grpc.secure_channel(f"localhost:{server.port}", credentials)


def test_answers_come_over_tls_and_callers_without_it_get_none(
    start_server: StartServer, authority: Authority
) -> None:
    server = start_server(tls_certificate=authority.certificate, tls_key=authority.key)
    with secure_channel(server, authority.root) as channel:
        assert predict(channel).model_version == 2
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == 1
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        assert code_of(lambda: predict(channel)) == grpc.StatusCode.UNAVAILABLE
    with secure_channel(server, trustme.CA().cert_pem.bytes()) as channel:
        assert code_of(lambda: predict(channel)) == grpc.StatusCode.UNAVAILABLE


def test_with_mutual_tls_only_callers_with_a_signed_certificate_are_answered(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root)
    server = start_server(
        tls_certificate=authority.certificate, tls_key=authority.key, tls_client_ca=root
    )
    with secure_channel(server, authority.root, authority.caller()) as channel:
        assert predict(channel).model_version == 2
    stranger = Authority(trustme.CA(), tmp_path).caller()
    for identity in ((None, None), stranger):
        with secure_channel(server, authority.root, identity) as channel:
            assert code_of(lambda: predict(channel)) == grpc.StatusCode.UNAVAILABLE


def test_a_new_certificate_is_taken_over_without_a_restart_and_open_connections_stay(
    start_server: StartServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve.server.security.reloading_files._PERIOD_S", 0)
    server = start_server(tls_certificate=authority.certificate, tls_key=authority.key)
    with secure_channel(server, authority.root) as old:
        predict(old)
        renewed = Authority(trustme.CA(), authority.folder)
        renewed.issue()
        with secure_channel(server, renewed.root) as new:
            assert predict(new).model_version == 2
        assert predict(old).model_version == 2


def test_a_certificate_without_its_key_is_not_taken_over(
    start_server: StartServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("mlpserve.server.security.reloading_files._PERIOD_S", 0)
    server = start_server(tls_certificate=authority.certificate, tls_key=authority.key)
    key = authority.key.read_bytes()
    Authority(trustme.CA(), authority.folder).issue()
    authority.key.write_bytes(key)
    for _ in range(2):
        with secure_channel(server, authority.root) as channel:
            assert predict(channel).model_version == 2
    refused = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    (message,) = refused  # once, not for each connection
    assert message.startswith("not taken over, what was there before stays: ")
    assert "KEY_VALUES_MISMATCH" in message


def token_file(tmp_path: Path, *names: str) -> tuple[Path, list[str]]:
    """Return a token file, and the tokens that it lets in."""
    made = [new_token(name) for name in names]
    file = tmp_path / "tokens"
    file.write_text("# who may call\n\n" + "".join(f"{line}\n" for _, line in made))
    return file, [token for token, _ in made]


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def test_every_method_but_health_asks_for_a_token(
    start_server: StartServer, tmp_path: Path
) -> None:
    file, (token, other) = token_file(tmp_path, "billing", "search")
    server = start_server(token_file=file)
    with grpc.insecure_channel(server.address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)

        def calls(metadata: Sequence[tuple[str, str]] | None) -> Iterator[Callable[[], object]]:
            options: dict[str, Any] = {"timeout": TIMEOUT_S, "metadata": metadata}
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            yield lambda: stub.Predict(REQUEST, **options)
            yield lambda: list(stub.PredictStream(iter([STREAMED]), **options))
            explain = prediction_pb2.ExplainRequest(images=REQUEST.images, steps=1)
            yield lambda: stub.Explain(explain, **options)
            yield lambda: stub.GetModel(prediction_pb2.GetModelRequest(), **options)
            yield lambda: stub.ListModels(prediction_pb2.ListModelsRequest(), **options)
            yield lambda: list(reflection.ServerReflectionInfo(iter([question]), **options))

        wrong = (
            None,
            bearer("wrong"),
            bearer(token.upper()),
            [("authorization", token)],
            bearer(""),
        )
        for metadata in wrong:
            for call in calls(metadata):
                assert code_of(call) == grpc.StatusCode.UNAUTHENTICATED
        for known in (token, other):
            for call in calls(bearer(known)):
                call()
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == 1


def test_a_refused_token_is_neither_logged_nor_shown(
    start_server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    file, (token,) = token_file(tmp_path, "billing")
    server = start_server(token_file=file)
    with grpc.insecure_channel(server.address) as channel:
        predict(channel, metadata=bearer(token))
        with pytest.raises(grpc.RpcError) as caught:
            predict(channel, metadata=bearer("a-secret-of-another-place"))
    assert caught.value.details() == "authorization: expected a token that is known here"
    assert "a-secret-of-another-place" not in caplog.text
    assert token not in caplog.text


def test_tokens_may_be_optional_and_a_wrong_one_is_refused_all_the_same(
    start_server: StartServer, tmp_path: Path
) -> None:
    file, (token,) = token_file(tmp_path, "billing")
    server = start_server(token_file=file, require_token=False)
    with grpc.insecure_channel(server.address) as channel:
        for metadata in (None, bearer(token)):
            assert predict(channel, metadata=metadata).model_version == 2
        refused = code_of(lambda: predict(channel, metadata=bearer("wrong")))
        assert refused == grpc.StatusCode.UNAUTHENTICATED


def test_a_token_that_is_taken_out_of_the_file_is_refused_and_a_new_one_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve.server.security.reloading_files._PERIOD_S", 0)
    file, (old,) = token_file(tmp_path, "billing")
    tokens = Tokens(file, required=True)
    assert tokens.caller(bearer(old)) == "billing"
    _, (new,) = token_file(tmp_path, "search-of-another-length")
    assert tokens.caller(bearer(new)) == "search-of-another-length"
    with pytest.raises(UnauthenticatedError):
        tokens.caller(bearer(old))
    file.write_text("nonsense\n")
    assert tokens.caller(bearer(new)) == "search-of-another-length"
    file.unlink()
    assert tokens.caller(bearer(new)) == "search-of-another-length"


def test_files_are_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    now_s = 0.0
    files = ReloadingFiles([file], lambda contents: contents[0], clock_s=lambda: now_s)
    file.write_bytes(b"second one")
    now_s = 0.9
    assert files.get() == b"first"
    now_s = 1.0
    assert files.get() == b"second one"


def test_the_token_file_holds_no_token() -> None:
    token, line = new_token("billing")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert line == f"billing sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def test_a_token_is_compared_with_all_that_are_known_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, given = token_file(tmp_path, "first", "second", "third")
    tokens = Tokens(file, required=True)
    compared: list[str] = []

    def compare(known: str, digest: str) -> bool:
        compared.append(known)
        return compare_digest(known, digest)  # takes as long wherever they differ

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for token, name in zip(given, ("first", "second", "third"), strict=True):
        assert tokens.caller(bearer(token)) == name
    with pytest.raises(UnauthenticatedError):
        tokens.caller(bearer("wrong"))
    known = re.findall(r"sha256:(\w+)", file.read_text())
    assert compared == [*known] * 4


def test_the_token_command_prints_a_token_that_its_line_lets_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "billing"]) == 0
    token, line = (each.split(":", 1)[1].strip() for each in capsys.readouterr().out.splitlines())
    (tmp_path / "tokens").write_text(line)
    assert Tokens(tmp_path / "tokens", required=True).caller(bearer(token)) == "billing"
    assert main(["token", "two words"]) == 1
    assert "name: expected 1 to 64 letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tls_certificate": "{certificate}"},
            "tls_key: expected both or neither",
        ),
        ({"tls_client_ca": "{certificate}"}, "tls_client_ca: expected tls_certificate"),
        ({"tls_certificate": "{certificate}", "tls_key": "missing"}, "missing: cannot be read: No"),
        ({"tls_certificate": "{key}", "tls_key": "{key}"}, "expected a certificate and its key"),
        ({"tls_certificate": "{certificate}", "tls_key": "{other}"}, "KEY_VALUES_MISMATCH"),
        (
            {"tls_certificate": "{certificate}", "tls_key": "{encrypted}"},
            "encrypted.pem: expected a certificate and its key in PEM, without a password",
        ),
        (
            {"tls_certificate": "{certificate}", "tls_key": "{key}", "tls_client_ca": "{key}"},
            "key.pem: expected certificates in PEM",
        ),
        ({"token_file": "missing"}, "missing: cannot be read: No such file"),
        ({"token_file": "{key}"}, "key.pem: line 1: expected NAME sha256:DIGEST"),
    ],
)
@pytest.mark.usefixtures("tiny_models")
def test_files_that_cannot_be_used_are_said_to_be_at_start(
    models: Path, authority: Authority, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "encrypted.pem").write_bytes(
        load_pem_private_key(authority.key.read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    places = {
        "certificate": authority.certificate,
        "key": authority.key,
        "other": tmp_path / "other.pem",
        "encrypted": tmp_path / "encrypted.pem",
    }
    paths: dict[str, Any] = {name: Path(value.format(**places)) for name, value in settings.items()}
    with pytest.raises(StartError) as caught:
        Server(ServerConfig(models=models, port=0, **paths))
    assert message in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_the_health_check_speaks_tls_and_mutual_tls(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root)
    for client_ca in (None, root):
        server = start_server(
            tls_certificate=authority.certificate, tls_key=authority.key, tls_client_ca=client_ca
        )
        files: dict[str, Any] = {"certificate": authority.certificate, "key": authority.key}
        assert health_problem(server.address, **files) is None
        assert "does not answer" in str(health_problem(server.address))
        assert "does not answer" in str(health_problem(server.address, name="other", **files))


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.exhaustive), "2"])
def test_workers_ask_for_tokens_and_a_server_survives_a_hangup(
    models: Path, tiny_models: None, tmp_path: Path, workers: str
) -> None:
    file, (token,) = token_file(tmp_path, "billing")
    command = [
        sys.executable,
        "-m",
        "mlpserve.server",
        "--models",
        str(models),
        "--port",
        "0",
        "--token-file",
        str(file),
        "--workers",
        workers,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ready = re.search(r"ready: .* on (\S+)$", process.stderr.readline())
        assert ready is not None
        process.send_signal(signal.SIGHUP)
        with grpc.insecure_channel(ready[1]) as channel:
            for _ in range(4):
                assert predict(channel, metadata=bearer(token)).model_version == 2
                assert code_of(lambda: predict(channel)) == grpc.StatusCode.UNAUTHENTICATED
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_reflection_can_be_switched_off(start_server: StartServer) -> None:
    server = start_server(reflection=False)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        calls = stub.ServerReflectionInfo(iter([question]), timeout=TIMEOUT_S)
        assert code_of(lambda: list(calls)) == grpc.StatusCode.UNIMPLEMENTED
