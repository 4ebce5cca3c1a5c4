"""Encryption and tokens, from the client's side, with a real server."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from mlpserve.client import Client, InvalidRequestError, UnauthenticatedError, UnavailableError
from mlpserve.server.security.tokens import new_token
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig

IMAGES = np.zeros((3, 6), np.uint8)


@dataclass(frozen=True)
class Guarded:
    """A server that speaks TLS only, and asks for a token."""

    target: str
    root: Path
    token: str

    def client(self, token: str) -> Client:
        credentials = grpc.ssl_channel_credentials(self.root.read_bytes())
        return Client(self.target, credentials=credentials, token=token)


@pytest.fixture
def guarded(models: Path, tiny_models: None, tmp_path: Path) -> Iterator[Guarded]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "root.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "certificate.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    token, line = new_token("tests")
    (tmp_path / "tokens").write_text(line)
    config = ServerConfig(
        models=models,
        port=0,
        tls_certificate=tmp_path / "certificate.pem",
        tls_key=tmp_path / "key.pem",
        token_file=tmp_path / "tokens",
    )
    server = Server(config)
    server.start()
    yield Guarded(f"localhost:{server.port}", tmp_path / "root.pem", token)
    server.stop()


def test_a_client_with_credentials_and_the_token_is_answered_by_every_method(
    guarded: Guarded,
) -> None:
    with guarded.client(guarded.token) as client:
        assert len(client.predict(IMAGES, max_images_per_request=1)) == 3
        assert [len(found) for found in client.predict_stream([IMAGES])] == [3]
        assert client.model().versions[0].version == 2
        assert [model.name for model in client.models()] == ["tiny"]


def test_a_client_without_the_token_is_told_so(guarded: Guarded) -> None:
    with guarded.client("wrong") as client, pytest.raises(UnauthenticatedError, match="known here"):
        client.predict(IMAGES)
    with guarded.client("") as client, pytest.raises(UnauthenticatedError, match="got none"):
        client.predict(IMAGES)


def test_a_client_without_encryption_is_not_answered_by_a_server_with_it(guarded: Guarded) -> None:
    with Client(guarded.target, token=guarded.token) as client, pytest.raises(UnavailableError):
        client.predict(IMAGES)


@pytest.mark.parametrize("token", ["two words", "line\n", "\u00e4"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Client("localhost:1", token=token)
    assert token not in str(caught.value)


def test_the_command_speaks_tls_and_sends_the_token_of_the_environment(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "images.npy", IMAGES)

    def predicted(*flags: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "mlpserve.client", "--target", guarded.target]
        return subprocess.run(
            [*command, *flags, str(tmp_path / "images.npy")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    refused = predicted("--tls-ca", str(guarded.root))
    assert refused.returncode == 1
    assert "UNAUTHENTICATED: authorization: expected metadata" in refused.stderr
    monkeypatch.setenv("MLPSERVE_TOKEN", guarded.token)
    assert predicted("--tls-ca", str(guarded.root)).returncode == 0
    assert "missing.pem: cannot be read" in predicted("--tls-ca", "missing.pem").stderr
