"""Routes of a training: what a page may ask for, and what it may choose."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mlpserve.playground.training import Training

_FILE_NAME: Final = re.compile(r"(.*?)(\.(?:npz|csv|csv\.gz|tsv|parquet|arrow))", re.IGNORECASE)
_MAX_SETTINGS_BYTES: Final = 4 << 10
_MAX_FILE_BYTES: Final = 128 << 20


def _is_number(text: str, lowest: float, highest: float) -> bool:
    try:
        return lowest <= float(text) <= highest
    except ValueError:
        return False


def _are_widths(text: str) -> bool:
    widths = text.split(",") if text else []
    return len(widths) <= 4 and all(_is_whole(width, 512) for width in widths)  # noqa: PLR2004


def _is_whole(text: str, highest: int) -> bool:
    return re.fullmatch(r"[0-9]{1,4}", text) is not None and 1 <= int(text) <= highest


# The settings that a page may choose, by their flags: whether a value will do, and which do.
SETTINGS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "data": (lambda text: text in {"drawn", "mnist", "own"}, "drawn, mnist or own"),
    "recipe": (lambda text: text in {"seed-fast", "fast"}, "seed-fast or fast"),
    "layers": (_are_widths, "up to 4 widths from 1 to 512, as in 16,16"),
    "learning-rate": (lambda text: _is_number(text, 1e-6, 100), "from 0.000001 to 100"),
    "epochs": (lambda text: _is_whole(text, 1000), "a whole number from 1 to 1000"),
}


def training_routes(training: Training) -> list[Route]:
    """Return the routes of a training."""

    async def watch(_: Request) -> Response:
        return StreamingResponse(training.watch(), media_type="text/event-stream")

    async def act(request: Request) -> Response:
        if not training.is_allowed:
            raise HTTPException(403, "training: not allowed here; start with --training")
        action = request.path_params["action"]
        try:
            if action == "start":
                training.start(await _settings(request))
            elif action == "file":
                name = _file_name(request.query_params.get("name", ""))
                await training.receive(name, _bounded(request, _MAX_FILE_BYTES))
            elif action == "stop":
                await training.stop()
            elif action in {"resume", "publish"}:
                getattr(training, action)()
            else:
                raise HTTPException(404, f"training: expected an action, got {action!r}")
        except OSError as error:
            raise HTTPException(507, f"training: nothing can be kept: {error.strerror}") from error
        return JSONResponse({})

    return [
        Route("/api/training", watch),
        Route("/api/training/{action}", act, methods=["POST"]),
    ]


def _file_name(name: str) -> str:
    """Return what a visitor's file is called here."""
    found = _FILE_NAME.fullmatch(name)
    if found is None:
        expected = "a file .npz, .csv, .csv.gz, .tsv, .parquet or .arrow"
        raise HTTPException(422, f"file: expected {expected}, got {name[-60:]!r}")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", found[1]).strip("-")[:60] or "data"
    return f"{stem}{found[2].lower()}"


async def _settings(request: Request) -> dict[str, str]:
    body = b"".join([piece async for piece in _bounded(request, _MAX_SETTINGS_BYTES)])
    try:
        said = json.loads(body)
        values = {name: str(said.get(name, "")).replace(" ", "") for name in SETTINGS}
    except (AttributeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise HTTPException(422, "settings: expected an object of JSON") from error
    for name, (fits, expected) in SETTINGS.items():
        if not fits(values[name]):
            got = values[name][:40]
            raise HTTPException(422, f"{name.replace('-', ' ')}: expected {expected}, got {got!r}")
    return values


async def _bounded(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    size, announced = 0, request.headers.get("content-length", "0")
    too_large = HTTPException(413, f"body: expected at most {max_bytes >> 10} KiB, got more")
    if int(announced) > max_bytes:
        raise too_large
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise too_large
        yield piece
