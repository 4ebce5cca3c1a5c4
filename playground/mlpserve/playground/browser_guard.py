"""Guard of the browser: headers that keep the page to itself, and requests to its own origin."""

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
_POLICY: Final = (
    f"{_OWN}; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'"
)
# Reports are whole pages with styles and pictures inside; no script runs in them.
_REPORT_POLICY: Final = f"{_OWN}; style-src 'unsafe-inline'; img-src data:; sandbox"
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class BrowserGuard:
    """Middleware that refuses what other sites make a browser send, and adds security headers.

    Args:
        application: What is guarded.
        allowed_hosts: The host names by which it may be reached, so that no foreign name can be
            made to mean this machine (DNS rebinding); empty for any.
    """

    def __init__(self, application: ASGIApp, allowed_hosts: frozenset[str]) -> None:
        self._application = application
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            await JSONResponse({"error": refusal}, 403)(scope, receive, send)
            return
        policy = _REPORT_POLICY if scope["path"].startswith("/report/") else _POLICY

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "Content-Security-Policy": policy}.items():
                    answered[name] = value
                answered.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._application(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> str | None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._allowed_hosts and host not in self._allowed_hosts:
            return f"host: expected one of {', '.join(sorted(self._allowed_hosts))}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return "origin: expected the page itself; other sites may not call it"
        return None
