"""Web application of the playground: the page, and what it asks for.

    browser -- picture --> /api/predict -- Predict --> mlpserve-serve
            <-- probabilities, and the image as the network sees it --

It is a service like any other that calls Predict. Nothing in it trusts the browser: bodies are
bounded, names and versions are looked up and never become paths by themselves.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mlpserve.client import (
    AsyncClient,
    ClientError,
    InvalidRequestError,
    ModelInfo,
    NotFoundError,
    TimeoutExceededError,
    UnavailableError,
    VersionInfo,
    preprocess,
)
from mlpserve.client.arrays import picture_values
from mlpserve.playground.browser_guard import BrowserGuard
from mlpserve.playground.examples import Examples
from mlpserve.playground.networks import Networks
from mlpserve.playground.run_folder import remove_abandoned
from mlpserve.playground.training import Training
from mlpserve.playground.training_routes import training_routes

STATIC: Final = Path(__file__).with_name("static")
# A drawing has 140 x 140 pixels of one byte; a picture that is dropped is made smaller by the page.
MAX_BODY_BYTES: Final = 1 << 20
MAX_SIDE: Final = 512
_AWAY: Final = "The server does not answer. The page keeps what is drawn and tries again."
_STATUSES: Final[tuple[tuple[type[ClientError], int], ...]] = (
    (InvalidRequestError, 422),
    (NotFoundError, 404),
    (UnavailableError, 503),
    (TimeoutExceededError, 504),
    (ClientError, 502),
)


def playground(
    make_client: Callable[[], AsyncClient],
    networks: Networks,
    examples: Examples,
    training: Training,
    *,
    allowed_hosts: frozenset[str],
) -> Starlette:
    """Return the application.

    Args:
        make_client: Returns a client of the server, when the application starts.
        networks: The weights of the versions, where they are at hand.
        examples: The images that a visitor may step through.
        training: What a visitor may train.
        allowed_hosts: The host names by which the page may be reached; empty for any.
    """

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        remove_abandoned()
        async with make_client() as client:
            application.state.client = client
            yield
            await training.close()

    application = Starlette(
        routes=[
            Route("/", lambda _: FileResponse(STATIC / "index.html")),
            Route("/api/models", _models),
            Route("/api/predict", _predict, methods=["POST"]),
            Route("/api/explain", _explain, methods=["POST"]),
            Route("/api/network", _network),
            Route("/api/example", _example),
            Route("/report/{model}/{version:int}", _report),
            *training_routes(training),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(BrowserGuard, allowed_hosts=allowed_hosts)],
        exception_handlers={
            ClientDisconnect: lambda *_: Response(status_code=400),  # nobody reads it
            ClientError: _client_error,
            HTTPException: _http_error,
        },
        lifespan=lifespan,
    )
    application.state.networks = networks
    application.state.versions = {}
    application.state.examples = examples
    return application


async def _models(request: Request) -> Response:
    """Describe all models and versions that are served."""
    networks: Networks = request.app.state.networks
    served = await _client(request).models()
    return JSONResponse([_model_as_json(model, networks) for model in served])


async def _predict(request: Request) -> Response:
    """Classify a picture: ``width`` x ``height`` bytes of grey, light on dark, or dark on light.

    ``prepare=28`` brings it to the form of MNIST's digits first, 28 x 28; without it, the picture
    must have the size that the model takes.
    """
    body = await _bounded_body(request)
    width, height = _whole(request, "width"), _whole(request, "height")
    if width * height != len(body) or not body:
        raise HTTPException(
            422, f"body: expected width x height = {width} x {height} bytes, got {len(body)}"
        )
    picture = np.frombuffer(body, np.uint8).reshape(1, height, width)
    side = _whole(request, "prepare", 0)
    if side > MAX_SIDE:
        raise HTTPException(422, f"prepare: expected a side of at most {MAX_SIDE}, got {side}")
    if side:
        picture = await run_in_threadpool(preprocess, picture, side=side)
    name, version = _model_name(request), _whole(request, "version", 0)
    described = await _described(request, name, version)
    values = picture_values(picture, described.value_range)
    # Where no version is named, another may answer, which may have no scores.
    is_scored = bool(version) and described.ood_threshold is not None
    begun_s = time.perf_counter()
    answer = await _client(request).predict(
        values, model=name, version=version, ood_scores=is_scored
    )
    elapsed_s = time.perf_counter() - begun_s
    return JSONResponse(
        {
            "model": answer.model_name,
            "version": answer.model_version,
            "label": int(answer.labels[0]),
            "probabilities": answer.probabilities[0].tolist(),
            "image": picture[0].ravel().tolist(),
            "milliseconds": round(1000 * elapsed_s, 3),
            "isUnlikeTraining": is_scored and bool(answer.out_of_distribution[0]),
        }
    )


async def _described(request: Request, name: str, version: int) -> VersionInfo:
    """Return the description of a version, which is asked for once."""
    known: dict[tuple[str, int], VersionInfo] = request.app.state.versions
    if not version:
        return (await _client(request).model(name)).versions[0]
    if (name, version) not in known:
        described = await _client(request).model(name, version=version)
        known[name, version] = described.versions[0]
    return known[name, version]


async def _explain(request: Request) -> Response:
    """Return what each pixel of a prepared image added to the logit of a class."""
    image = np.frombuffer(await _bounded_body(request), np.uint8)
    name, version = _model_name(request), _whole(request, "version")
    values = picture_values(
        image[np.newaxis], (await _described(request, name, version)).value_range
    )
    found = await _client(request).explain(
        values, classes=_whole(request, "class"), model=name, version=version
    )
    return JSONResponse(
        {"attributions": [round(float(value), 6) for value in found.attributions[0]]}
    )


async def _network(request: Request) -> Response:
    """Return the layers of a version, with their weights."""
    networks: Networks = request.app.state.networks
    name, version = _model_name(request), _whole(request, "version")
    layers = await run_in_threadpool(networks.layers, name, version)
    if layers is None:
        raise HTTPException(404, f"weights: {networks.absence(name, version)}")
    return JSONResponse(layers, headers={"Cache-Control": "private, max-age=3600"})


async def _example(request: Request) -> Response:
    """Return one image of the test data, and its class."""
    examples: Examples = request.app.state.examples
    image, label = await run_in_threadpool(examples.get, _whole(request, "number", 0))
    return JSONResponse(
        {"count": examples.count, "data": examples.name, "label": label, "image": _listed(image)}
    )


async def _report(request: Request) -> Response:
    """Return the report that the trainer wrote beside a version's weights."""
    networks: Networks = request.app.state.networks
    report = networks.report(request.path_params["model"], request.path_params["version"])
    if report is None:
        raise HTTPException(404, "report: this version has none here")
    return FileResponse(report)


def _client(request: Request) -> AsyncClient:
    client: AsyncClient = request.app.state.client
    return client


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"body: expected at most {MAX_BODY_BYTES} bytes, got more")
    return bytes(body)


def _whole(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= len("999999999")):
        raise HTTPException(422, f"{name}: expected a whole number, got {(text or '')[:20]!r}")
    return int(text)


def _model_name(request: Request) -> str:
    return request.query_params.get("model", "")


def _model_as_json(model: ModelInfo, networks: Networks) -> dict[str, Any]:
    return {
        "name": model.name,
        "defaultVersion": model.default_version,
        "labels": dict(model.labels),
        "versions": [_version_as_json(model.name, version, networks) for version in model.versions],
    }


def _version_as_json(name: str, version: VersionInfo, networks: Networks) -> dict[str, Any]:
    return {
        "version": version.version,
        "classes": list(version.class_labels),
        "inputShape": list(version.input_shape),
        "layerSizes": list(version.layer_sizes),
        "activations": list(version.activations),
        "recipe": version.training.recipe,
        "data": version.training.data_name,
        "testAccuracy": version.training.test_accuracy,
        "createdAt": version.training.created_at.isoformat(),
        "weightsBytes": networks.weights_bytes(name, version.version),
        "hasReport": networks.report(name, version.version) is not None,
    }


def _listed(image: npt.NDArray[Any]) -> list[int]:
    listed: list[int] = image.ravel().tolist()
    return listed


async def _client_error(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    if isinstance(error, UnavailableError | TimeoutExceededError):
        return JSONResponse({"error": f"{_AWAY} ({error})"}, status)
    return JSONResponse({"error": str(error)}, status)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is what this handler is for
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
