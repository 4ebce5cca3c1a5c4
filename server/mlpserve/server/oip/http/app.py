"""Endpoints of the protocol over HTTP, as an ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from threading import Event
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

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
from mlpserve.server.oip.http.routes import OK, Endpoint, Routes, application, json_response
from mlpserve.server.oip.inference import Inference
from mlpserve.server.oip.repository import HTTP_EXTENSIONS, Repository
from mlpserve.server.security.admission import Admission
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_record import RequestRecord

_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = _MODEL + "/versions/{version}"
_HEALTH: Final = "/v2/health/"  # open to anybody, as gRPC's is
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_GONE: Final = "the caller left before its turn came"


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
        self._routes = Routes(recorder, admission)
        self._max_body_bytes = max_body_bytes
        self._allowed_origins = allowed_origins

    def application(self) -> Starlette:
        """Return what an ASGI server calls."""
        tables = {"GET": self._get_endpoints(), "POST": self._post_endpoints()}
        routes = [
            self._routes.route(method, path, answer, is_open=path.startswith(_HEALTH))
            for method, endpoints in tables.items()
            for path, answer in endpoints.items()
        ]
        return application(routes, self._allowed_origins)

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

    async def _live(self, _: Request) -> Response:
        return json_response({"live": True})

    async def _ready(self, _: Request) -> Response:
        is_ready = self._repository.is_ready
        return json_response({"ready": is_ready}, OK if is_ready else _UNAVAILABLE)

    async def _server_metadata(self, _: Request) -> Response:
        described = plain(self._repository.server_metadata())
        described["extensions"] += HTTP_EXTENSIONS
        return json_response(described)

    async def _model_ready(self, request: Request) -> Response:
        name, version = _asked(request)
        is_ready = self._repository.is_model_ready(name, version)
        return json_response({"name": name, "ready": is_ready}, OK if is_ready else _NOT_FOUND)

    async def _model_metadata(self, request: Request) -> Response:
        return json_response(plain(self._repository.model_metadata(*_asked(request))))

    async def _model_config(self, request: Request) -> Response:
        return json_response(plain(self._repository.model_config(*_asked(request))))

    async def _statistics(self, request: Request) -> Response:
        # All workers are asked, and one that hangs is waited for; nobody else is to wait with it.
        found = await run_in_threadpool(self._repository.model_statistics, *_asked(request))
        return json_response(plain(found))

    async def _index(self, request: Request) -> Response:
        wanted = await self._options(request)
        index = self._repository.index("", ready_only=wanted.get("ready") is True)
        return json_response(plain(index)["models"])

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
