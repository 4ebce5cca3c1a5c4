"""Endpoints of the protocol over HTTP, as an ASGI application."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from threading import Event
from typing import Any, Final, TypeAlias

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mlpserve.server.errors import ExpiredError
from mlpserve.server.grpc_api.servicer import MAX_QUESTION_BYTES
from mlpserve.server.inference.batcher import Batcher
from mlpserve.server.oip.descriptions import plain
from mlpserve.server.oip.http.body import (
    HEADER_LENGTH,
    read_body,
    read_options,
    write_body,
)
from mlpserve.server.oip.http.limits import received_body
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.repository import HTTP_EXTENSIONS, Repository
from mlpserve.server.security.admission import CALLER_NAME, Admission, Place
from mlpserve.server.security.tokens import AUTHORIZATION
from mlpserve.server.statuses import refuse
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_log import REQUEST_ID_KEY
from mlpserve.server.telemetry.request_record import RequestRecord

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = _MODEL + "/versions/{version}"
_HEALTH: Final = "/v2/health/"  # open to anybody, as gRPC's is
_OK: Final = 200
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_GONE: Final = "the caller left before its turn came"
_CLIENT_GONE: Final = 499  # as nginx has it; it is never sent


class OpenInference:
    """The endpoints: health, metadata, inference, and the model repository.

    Args:
        inference: Reads inference requests.
        repository: Answers all other questions.
        batcher: What runs the networks.
        recorder: Records calls.
        max_body_bytes: The longest body that is read.
        admission: Lets requests in.
        allowed_origins: The origins whose pages browsers let call; none for no CORS.
    """

    def __init__(
        self,
        inference: Inference,
        repository: Repository,
        batcher: Batcher,
        recorder: Recorder,
        *,
        max_body_bytes: int,
        admission: Admission,
        allowed_origins: Sequence[str] = (),
    ) -> None:
        self._inference = inference
        self._repository = repository
        self._batcher = batcher
        self._recorder = recorder
        self._max_body_bytes = max_body_bytes
        self._admission = admission
        self._allowed_origins = allowed_origins

    def application(self) -> Starlette:
        """Return what an ASGI server calls."""
        routes = [
            self._route("GET", path, answer) for path, answer in self._get_endpoints().items()
        ]
        routes += [
            self._route("POST", path, answer) for path, answer in self._post_endpoints().items()
        ]
        return Starlette(
            routes=routes,
            middleware=self._middleware(),
            exception_handlers={HTTPException: _refused_by_starlette},
        )

    def _middleware(self) -> list[Middleware]:
        if not self._allowed_origins:
            return []
        cors = Middleware(
            CORSMiddleware,
            allow_origins=self._allowed_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=(HEADER_LENGTH, REQUEST_ID_KEY),
        )
        return [cors]

    def _get_endpoints(self) -> Mapping[str, Endpoint]:
        return {
            _HEALTH + "live": self._live,
            _HEALTH + "ready": self._ready,
            "/v2": self._server_metadata,
            "/v2/models/stats": self._statistics,
            **{
                start + end: answer
                for start in (_MODEL, _VERSION)
                for end, answer in (
                    ("", self._model_metadata),
                    ("/ready", self._model_ready),
                    ("/config", self._model_config),
                    ("/stats", self._statistics),
                )
            },
        }

    def _post_endpoints(self) -> Mapping[str, Endpoint]:
        return {
            _MODEL + "/infer": self._infer,
            _VERSION + "/infer": self._infer,
            "/v2/repository/index": self._index,
            "/v2/repository/models/{name}/load": self._load,
            "/v2/repository/models/{name}/unload": self._unload,
        }

    def _route(self, method: str, path: str, answer: Endpoint) -> Route:
        async def endpoint(request: Request) -> Response:
            record = self._recorder.arrived(
                f"{method} {path}", request.headers.items(), caller=_connection(request)
            )
            request.state.record = record
            try:
                if path.startswith(_HEALTH):
                    response = await answer(request)
                else:
                    response = await self._admitted(answer, request, record)
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
                return _json({"error": refusal.details}, refusal.http_code, headers=headers)
            return response

        return Route(path, endpoint, methods=[method])

    async def _admitted(
        self, answer: Endpoint, request: Request, record: RequestRecord
    ) -> Response:
        record.caller = self._admission.enter(_authorization(request), record.caller)
        place = Place(partial(self._admission.leave, record.caller))
        CALLER_NAME.set(record.caller)
        try:
            return await answer(request)
        finally:
            place.leave()

    async def _live(self, _: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, _: Request) -> Response:
        is_ready = self._repository.is_ready
        return _json({"ready": is_ready}, _OK if is_ready else _UNAVAILABLE)

    async def _server_metadata(self, _: Request) -> Response:
        described = plain(self._repository.server_metadata())
        described["extensions"] += HTTP_EXTENSIONS
        return _json(described)

    async def _model_ready(self, request: Request) -> Response:
        name, version = _asked(request)
        is_ready = self._repository.is_model_ready(name, version)
        return _json({"name": name, "ready": is_ready}, _OK if is_ready else _NOT_FOUND)

    async def _model_metadata(self, request: Request) -> Response:
        return _json(plain(self._repository.model_metadata(*_asked(request))))

    async def _model_config(self, request: Request) -> Response:
        return _json(plain(self._repository.model_config(*_asked(request))))

    async def _statistics(self, request: Request) -> Response:
        # All workers are asked, and one that hangs is waited for; nobody else is to wait with it.
        found = await run_in_threadpool(self._repository.model_statistics, *_asked(request))
        return _json(plain(found))

    async def _index(self, request: Request) -> Response:
        wanted = await self._options(request)
        index = self._repository.index("", ready_only=wanted.get("ready") is True)
        return _json(plain(index)["models"])

    async def _load(self, request: Request) -> Response:
        options = await self._options(request)
        name = request.path_params["name"]
        await run_in_threadpool(self._repository.load, "", name, options.get("parameters") or {})
        return Response()

    async def _unload(self, request: Request) -> Response:
        options = await self._options(request)
        name = request.path_params["name"]
        await run_in_threadpool(self._repository.unload, "", name, options.get("parameters") or {})
        return Response()

    async def _infer(self, request: Request) -> Response:
        body = await received_body(request, max_bytes=self._max_body_bytes)
        record: RequestRecord = request.state.record
        self._recorder.received(record)
        length = request.headers.get(HEADER_LENGTH)
        name, version = _asked(request)
        async with _watched(request) as is_wanted:
            return await run_in_threadpool(
                self._inferred, body, length, name, version, record=record, is_wanted=is_wanted
            )

    def _inferred(
        self,
        body: bytes,
        header_length: str | None,
        name: str,
        version: str,
        *,
        record: RequestRecord,
        is_wanted: Callable[[], bool],
    ) -> Response:
        if not is_wanted():
            raise ExpiredError(_GONE)
        asked_for = read_body(
            body,
            header_length,
            model_name=name,
            model_version=version,
            max_values=self._inference.max_values,
            image_form=lambda: self._inference.image_form(name, version),
        )
        parsed = self._inference.request(
            asked_for.request,
            record,
            self._inference.router.key(record.metadata),
            partial(write_body, binary_outputs=asked_for.binary_outputs),
        )
        parsed.is_wanted = is_wanted
        self._batcher.submit(parsed)
        written, json_bytes = parsed.encode(self._batcher.wait(parsed))
        if json_bytes is None:
            return Response(written, media_type="application/json")
        headers = {HEADER_LENGTH: str(json_bytes)}
        return Response(written, media_type="application/octet-stream", headers=headers)

    async def _options(self, request: Request) -> Mapping[str, Any]:
        return read_options(await received_body(request, max_bytes=MAX_QUESTION_BYTES))


@asynccontextmanager
async def _watched(request: Request) -> AsyncIterator[Callable[[], bool]]:
    """Yield what says, in any thread, whether a caller still waits whose body was received."""
    gone = Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.create_task(watch())
    try:
        yield lambda: not gone.is_set()
    finally:
        watching.cancel()


def _asked(request: Request) -> tuple[str, str]:
    """Return the name and the version that a path has; empty where it has none."""
    return request.path_params.get("name", ""), request.path_params.get("version", "")


def _connection(request: Request) -> str:
    return "" if request.client is None else f"{request.client.host}:{request.client.port}"


def _authorization(request: Request) -> list[tuple[str, str | bytes]]:
    given = request.headers.get(AUTHORIZATION)
    return [] if given is None else [(AUTHORIZATION, given)]


async def _refused_by_starlette(_: Request, error: Exception) -> Response:
    """Return a refusal of a path or a method that there is not."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    return _json({"error": error.detail}, error.status_code, headers=error.headers)


def _json(content: object, status: int = _OK, headers: Mapping[str, str] | None = None) -> Response:
    # In ASCII: what a caller sent, and an error repeats, may be no text that UTF-8 can say.
    written = json.dumps(content, separators=(",", ":"))
    return Response(written, status, headers, media_type="application/json")
