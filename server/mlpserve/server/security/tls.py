"""TLS: certificates from files, taken over by new connections when the files change."""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc

from mlpserve.server.errors import StartError
from mlpserve.server.security.reloading_files import ReloadingFiles
from mlpserve.server.settings.config import ServerConfig


class Encryption(NamedTuple):
    """How a server encrypts.

    Attributes:
        credentials: With which it listens.
        look: Looks now whether there are other certificates.
    """

    credentials: grpc.ServerCredentials
    look: Callable[[], None]


def server_encryption(config: ServerConfig) -> Encryption | None:
    """Return how a server with these settings encrypts; None for not at all.

    Raises:
        StartError: A file cannot be read, or holds no certificate, no key, or those of others.
    """
    certificate, key, authority = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None
    paths = [certificate, key, *([authority] if authority else [])]
    files = ReloadingFiles(paths, lambda contents: _configuration(paths, contents))
    credentials = grpc.dynamic_ssl_server_credentials(
        files.get(), files.get, require_client_authentication=authority is not None
    )
    return Encryption(credentials, files.look)


def _configuration(
    paths: Sequence[Path], contents: Sequence[bytes]
) -> grpc.ServerCertificateConfiguration:
    certificate, key, *authorities = paths
    try:
        # gRPC would say nothing here, and refuse every connection.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_none)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise StartError(
            f"{certificate}, {key}: expected a certificate and its key in PEM, without a password: "
            f"{getattr(error, 'reason', None) or error}"
        ) from error
    for authority in authorities:
        try:
            ssl.create_default_context(cafile=authority)
        except (OSError, ValueError) as error:
            raise StartError(f"{authority}: expected certificates in PEM") from error
    chain, private, *roots = contents
    return grpc.ssl_server_certificate_configuration(
        [(private, chain)], root_certificates=roots[0] if roots else None
    )


def _none() -> str:
    """Return no password, instead of asking a terminal for one."""
    return ""
