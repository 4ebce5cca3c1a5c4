"""Opens the port for HTTP, as the settings say."""

import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mlpserve.server.errors import StartError
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.repository import Repository
from mlpserve.server.security.admission import Admission
from mlpserve.server.security.reloading_files import ReloadingFiles
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.statuses import Calls
from mlpserve.server.system.ports import listening_sockets

if TYPE_CHECKING:
    from mlpserve.server.oip.http.server import HttpServer


def open_http(
    config: ServerConfig,
    inference: Inference,
    repository: Repository,
    batcher: Batcher,
    calls: Calls,
    *,
    max_body_bytes: int,
    admission: Admission,
) -> "HttpServer":
    """Return an HTTP server whose port is taken, and that is not started yet.

    Args:
        config: The settings.
        inference: Reads inference requests.
        repository: Answers all other questions.
        batcher: What runs the networks.
        calls: What is done about requests besides answering them.
        max_body_bytes: The longest body that is read.
        admission: Lets requests in.

    Raises:
        StartError: The port is taken, or what HTTP needs is not installed.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise StartError(
            "http_port: needs Starlette and uvicorn: pip install 'mlpserve[server,http]'"
        )
    # Only now, because they are installed only where HTTP is wanted.
    from mlpserve.server.oip.http.app import OpenInference  # noqa: PLC0415
    from mlpserve.server.oip.http.server import HttpServer  # noqa: PLC0415

    answers = OpenInference(
        inference, repository, batcher, calls, max_body_bytes=max_body_bytes, admission=admission
    )
    context, files = _tls(config)
    return HttpServer(
        answers.application(),
        listening_sockets(config.host, config.http_port, shares_port=config.shares_port),
        stop_grace_s=config.stop_grace_s,
        tls=context,
        files=files,
    )


def _tls(config: ServerConfig) -> tuple[ssl.SSLContext | None, ReloadingFiles[None] | None]:
    """Return the context of TLS, and what takes over certificates that were renewed."""
    certificate, key, authority = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None, None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority)
    # New connections of the same context use what was loaded last.
    files = ReloadingFiles([certificate, key], lambda _: _load(context, certificate, key))
    return context, files


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise StartError(f"{certificate}, {key}: expected a certificate and its key") from error
