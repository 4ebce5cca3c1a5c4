"""URLs of object stores, with the secrets hidden that they may hold and no log should show."""

import hashlib
import re
from typing import Final
from urllib.parse import unquote

from mlpserve.model.errors import SyncError

_BASE_LIBRARIES: Final = ("fsspec", "platformdirs")
# Which extra brings what reads these.
EXTRAS: Final = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# In any text, and with one slash too: a URL that is misspelt is taken for the path of a folder.
_QUERY: Final = re.compile(r"(:/[^?\s'\"]*\?)[^\s'\"]+")
_USER: Final = re.compile(r"(:/+)[^/\s'\"][^\s'\"]*@")
_DIGEST_DIGITS: Final = 16
_HIDDEN: Final = "***"
_MIN_SECRET_LENGTH: Final = 4  # what is shorter stands in texts by chance


def is_url(text: str) -> bool:
    """Return whether this is a URL and not the path of a folder."""
    return _URL.fullmatch(text) is not None


def scheme(url: str) -> str:
    """Return what stands before ``://``; empty where that is nowhere."""
    return url.partition("://")[0] if is_url(url) else ""


def url_digest(url: str) -> str:
    """Return what tells URLs apart and gives none of them away, secrets and all."""
    return hashlib.sha256(url.encode()).hexdigest()[:_DIGEST_DIGITS]


def not_installed(url_scheme: str, missing: str) -> SyncError:
    """Return the error for URLs whose library is missing; it says which extra brings it."""
    base = "object-store" if missing in _BASE_LIBRARIES else None
    extra = EXTRAS.get(url_scheme, base)
    advice = f"pip install 'mlpserve[{extra}]'" if extra else missing
    return SyncError(f"URL: what reads {url_scheme}:// is not installed: {advice}")


def names_credentials(url: str) -> bool:
    """Return whether credentials seem to stand before the name of the bucket."""
    rest = url.partition("://")[2]
    bucket = rest.partition("/")[0]
    # A secret may hold a slash, and then the name of the bucket seems to end in it.
    return "@" in bucket or (":" in bucket and "@" in rest and not bucket.startswith("arn:"))


def without_secrets(url: str) -> str:
    """Return the URL with ``***`` for whatever stands before an ``@`` or after a ``?``."""
    user, place, query = _parts(url)
    shown_user, shown_query = f"{_HIDDEN}@" if user else "", f"?{_HIDDEN}" if query else ""
    return f"{scheme(url)}://{shown_user}{place}{shown_query}"


def shown(value: object) -> str:
    """Return a value of any kind as text that may be shown, with ``***`` for secrets of URLs."""
    text = str(value)
    if is_url(text):
        return without_secrets(text)
    return _USER.sub(rf"\1{_HIDDEN}@", _QUERY.sub(rf"\1{_HIDDEN}", text))


def hide_secrets(text: str, url: str) -> str:
    """Return a text with ``***`` wherever it repeats a secret of a URL."""
    user, _, query = _parts(url)
    password = user.partition(":")[2]
    values = (value.partition("=")[2] for value in query.split("&"))
    for secret in (user, query, password, *values):
        for form in {secret, unquote(secret)}:
            if len(form) >= _MIN_SECRET_LENGTH:
                text = text.replace(form, _HIDDEN)
    return text


def _parts(url: str) -> tuple[str, str, str]:
    """Return what stands before the last ``@``, the place, and the query."""
    rest, _, query = url.partition("://")[2].partition("?")
    user, _, place = rest.rpartition("@")
    return user, place, query
