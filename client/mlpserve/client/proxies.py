"""HTTP proxies of the environment, as gRPC takes them: for which targets, and how errors name them.

Source: gRPC's doc/environment_variables.md, and http_proxy_mapper.cc of its core.
"""

import os
import re
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")  # the first that is set counts
_EXCEPTIONS: Final = ("no_grpc_proxy", "no_proxy")
_LOCAL: Final = ("unix:", "unix-abstract:")
_SCHEME: Final = re.compile(r"(?:dns|ipv4|ipv6):(?://[^/]*/)?")
_PORT: Final = re.compile(r":\d+$")


def is_loopback(target: str) -> bool:
    """Return whether a target is on this machine, so that no proxy is to stand in between."""
    return target.startswith(_LOCAL) or all(map(_is_loopback_host, _hosts(target)))


def described(target: str) -> str:
    """Return a target as errors name it: with the proxy that its calls go through, if one does."""
    variable = next((name for name in _PROXIES if os.environ.get(name)), None)
    if variable is None or is_loopback(target) or _is_exempt(_hosts(target)[0]):
        return target
    exceptions = next((name for name in _EXCEPTIONS if name in os.environ), _EXCEPTIONS[-1])
    value = os.environ[variable]
    proxy = urlsplit(value if "://" in value else f"//{value}").netloc.rpartition("@")[2]
    return (
        f"{target} (through the proxy {proxy} of {variable}; to go around it, "
        f"put the host into {exceptions})"
    )


def _hosts(target: str) -> list[str]:
    """Return the hosts of a target, without ports and brackets."""
    addresses = _SCHEME.sub("", target, count=1).split(",")
    return [_PORT.sub("", address).strip("[]") for address in addresses]


def _is_loopback_host(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_exempt(host: str) -> bool:
    """Return whether a host is one of the exceptions: ends like one, or is in a network of one."""
    texts = (os.environ[name] for name in _EXCEPTIONS if name in os.environ)
    return any(_is_match(host, each.strip()) for each in next(texts, "").split(","))


def _is_match(host: str, exception: str) -> bool:
    if not exception:
        return False
    try:
        return ip_address(host) in ip_network(exception, strict=False)
    except ValueError:
        return host.lower().endswith(exception.lower())
