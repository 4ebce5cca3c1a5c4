"""TLS of gRPC and HTTP: certificates from files; new connections get those that were renewed."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import grpc

from mlpserve.server.errors import StartError
from mlpserve.server.security.reloading_files import ReloadingFiles
from mlpserve.server.settings.config import ServerConfig

GrpcTls: TypeAlias = tuple[
    grpc.ServerCredentials, ReloadingFiles[grpc.ServerCertificateConfiguration]
]
HttpTls: TypeAlias = tuple[ssl.SSLContext, ReloadingFiles[None]]


def grpc_tls(config: ServerConfig) -> GrpcTls | None:
    """Return the credentials of gRPC servers, and the files that they follow; None without TLS.

    Raises:
        StartError: A file cannot be read, or holds no certificate, no key, or those of others.
    """
    certificate, key, authority = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None

    def parse(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
        # gRPC would say nothing of what is wrong, and refuse every connection.
        _context(certificate, key, authority)
        chain, private, *roots = contents
        return grpc.ssl_server_certificate_configuration(
            [(private, chain)], root_certificates=roots[0] if roots else None
        )

    files = ReloadingFiles([certificate, key, *([authority] if authority else [])], parse)
    credentials = grpc.dynamic_ssl_server_credentials(
        files.get(), files.get, require_client_authentication=authority is not None
    )
    return credentials, files


def http_tls(config: ServerConfig) -> HttpTls | None:
    """Return the context of HTTP servers, and the files that it follows; None without TLS.

    Raises:
        StartError: As for ``grpc_tls``.
    """
    certificate, key = config.tls_certificate, config.tls_key
    if certificate is None or key is None:
        return None
    context = _context(certificate, key, config.tls_client_ca)
    # New connections of the same context use what was loaded last.
    return context, ReloadingFiles([certificate, key], lambda _: _load(context, certificate, key))


def _context(certificate: Path, key: Path, authority: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, certificate, key)
    if authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise StartError(f"{authority}: expected certificates in PEM") from error
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # With no password, or OpenSSL would ask a terminal for one.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise StartError(
            f"{certificate}, {key}: expected a certificate and its key in PEM, without a password: "
            f"{getattr(error, 'reason', None) or error}"
        ) from error
