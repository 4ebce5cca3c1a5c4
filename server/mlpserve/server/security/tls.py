"""TLS of gRPC and HTTP: certificates from files; new connections get those that were renewed."""

import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

import grpc

from mlpserve.server.errors import StartError
from mlpserve.server.security.reloading_files import ReloadingFiles
from mlpserve.server.settings.config import ServerConfig

GrpcTls: TypeAlias = tuple[
    grpc.ServerCredentials, ReloadingFiles[grpc.ServerCertificateConfiguration]
]
HttpTls: TypeAlias = ReloadingFiles[ssl.SSLContext]
_T = TypeVar("_T")


def grpc_tls(config: ServerConfig) -> GrpcTls | None:
    """Return the credentials of gRPC servers, and the files that they follow; None without TLS.

    Raises:
        StartError: A file cannot be read, or holds no certificate, no key, or those of others.
    """

    def parse(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
        chain, private, *roots = contents
        return grpc.ssl_server_certificate_configuration(
            [(private, chain)], root_certificates=roots[0] if roots else None
        )

    # gRPC would say nothing of what is wrong, and refuse every connection: the context is a check.
    files = _files(config, lambda contents, _: parse(contents))
    if files is None:
        return None
    credentials = grpc.dynamic_ssl_server_credentials(
        files.get(), files.get, require_client_authentication=config.tls_client_ca is not None
    )
    return credentials, files


def http_tls(config: ServerConfig) -> HttpTls | None:
    """Return the context for new connections of HTTP servers; None without TLS.

    Raises:
        StartError: As for ``grpc_tls``.
    """
    return _files(config, lambda _, context: context)


def _files(
    config: ServerConfig, parse: Callable[[Sequence[bytes], ssl.SSLContext], _T]
) -> ReloadingFiles[_T] | None:
    certificate, key, authority = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        return None
    paths = [certificate, key, *([authority] if authority else [])]
    return ReloadingFiles(paths, lambda contents: parse(contents, _context(paths, contents)))


def _context(paths: Sequence[Path], contents: Sequence[bytes]) -> ssl.SSLContext:
    """Return a new context of what was read: the files may be others by now."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with _named(contents[0]) as certificate, _named(contents[1]) as key:
        try:
            # With no password, or OpenSSL would ask a terminal for one.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise StartError(
                f"{paths[0]}, {paths[1]}: expected a certificate and its key in PEM, without a "
                f"password: {getattr(error, 'reason', None) or error}"
            ) from error
    for path, content in zip(paths[2:], contents[2:], strict=True):
        context.verify_mode = ssl.CERT_REQUIRED
        with _named(content) as authority:
            try:
                context.load_verify_locations(authority)
            except (OSError, ValueError) as error:
                raise StartError(f"{path}: expected certificates in PEM") from error
    return context


@contextmanager
def _named(content: bytes) -> Iterator[str]:
    """Yield the name of a file in memory, because OpenSSL takes nothing but names."""
    with os.fdopen(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"
