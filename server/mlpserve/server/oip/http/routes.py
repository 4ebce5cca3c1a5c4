"""Routes of HTTP: each request is recorded, admitted, and answered once, whatever fails."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mlpserve.server.oip.http.body import HEADER_LENGTH
from mlpserve.server.security.admission import CALLER_NAME, Admission, Place
from mlpserve.server.security.tokens import AUTHORIZATION
from mlpserve.server.statuses import refuse
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_log import REQUEST_ID_KEY
from mlpserve.server.telemetry.request_record import RequestRecord

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

OK: Final = 200
_CLIENT_GONE: Final = 499  # as nginx has it; it is never sent


class Routes:
    """Makes the routes of endpoints.

    Args:
        recorder: Records their requests.
        admission: Lets requests in.
    """

    def __init__(self, recorder: Recorder, admission: Admission) -> None:
        self._recorder = recorder
        self._admission = admission

    def route(self, method: str, path: str, answer: Endpoint, *, is_open: bool) -> Route:
        """Return the route of an endpoint.

        Args:
            method: Its method of HTTP.
            path: Its path, with the names of parameters in braces.
            answer: What it does. It finds the request's record in ``request.state``.
            is_open: Whether it answers anybody, and counts nobody.
        """
        name = f"{method} {path}"

        async def endpoint(request: Request) -> Response:
            record = RequestRecord(name)
            try:
                record = request.state.record = self._recorder.arrived(
                    name, request.headers.items(), caller=_connection(request)
                )
                response = await (answer(request) if is_open else self._admitted(answer, request))
                if record.model:  # a network has answered
                    self._recorder.answered(record)
                else:
                    self._recorder.ended(record, "OK")
            except ClientDisconnect:  # before it has sent all; nobody is left to be told
                self._recorder.ended(record, "CANCELLED")
                return Response(status_code=_CLIENT_GONE)
            except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
                refusal = refuse(self._recorder, record, error)
                headers = dict(refusal.metadata)
                return json_response({"error": refusal.details}, refusal.http_code, headers=headers)
            return response

        return Route(path, endpoint, methods=[method])

    async def _admitted(self, answer: Endpoint, request: Request) -> Response:
        record: RequestRecord = request.state.record
        record.caller = self._admission.enter(_authorization(request), record.caller)
        place = Place(partial(self._admission.leave, record.caller))
        CALLER_NAME.set(record.caller)
        try:
            return await answer(request)
        finally:
            place.leave()


def application(routes: Sequence[Route], allowed_origins: Sequence[str]) -> Starlette:
    """Return what an ASGI server calls.

    Args:
        routes: What it answers.
        allowed_origins: The origins whose pages browsers let call; none for no CORS.
    """
    cors = Middleware(
        CORSMiddleware,
        allow_origins=allowed_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=(HEADER_LENGTH, REQUEST_ID_KEY),
    )
    return Starlette(
        routes=routes,
        middleware=[cors] if allowed_origins else [],
        exception_handlers={HTTPException: _refused_by_starlette},
    )


def json_response(
    content: object, status: int = OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response of JSON."""
    # In ASCII: what a caller sent, and an error repeats, may be no text that UTF-8 can say.
    written = json.dumps(content, separators=(",", ":"))
    return Response(written, status, headers, media_type="application/json")


async def _refused_by_starlette(_: Request, error: Exception) -> Response:
    """Return a refusal of a path or a method that there is not."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    return json_response({"error": error.detail}, error.status_code, headers=error.headers)


def _connection(request: Request) -> str:
    return "" if request.client is None else f"{request.client.host}:{request.client.port}"


def _authorization(request: Request) -> list[tuple[str, str | bytes]]:
    given = request.headers.get(AUTHORIZATION)
    return [] if given is None else [(AUTHORIZATION, given)]
