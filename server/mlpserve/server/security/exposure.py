"""What a server leaves open to anybody, in a line each, for its operator to know at start."""

from collections.abc import Iterator

from mlpserve.server.settings.config import NO_PORT, ServerConfig


def exposure_warnings(config: ServerConfig) -> Iterator[str]:
    """Yield a sentence for each thing that strangers may do, and how to have it otherwise."""
    asks_for_tokens = config.token_file is not None and config.require_token
    is_encrypted = config.tls_certificate is not None
    if not (_is_local(config.host) or asks_for_tokens or is_encrypted):
        yield (
            f"anybody who can reach {config.host} may call, and read what others send: see "
            "--token-file and --tls-certificate"
        )
    if config.allow_management and not (asks_for_tokens or config.tls_client_ca is not None):
        yield (
            "anybody who may call may load and unload models, with neither a token nor a "
            "certificate: see --token-file and --tls-client-ca, or leave out --allow-management"
        )
    if config.metrics_port != NO_PORT and not _is_local(config.metrics_host):
        yield (
            f"anybody who can reach {config.metrics_host} may read the metrics, which tell names "
            "of models and how busy they are: keep --metrics-host to Prometheus's network"
        )


def _is_local(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")
