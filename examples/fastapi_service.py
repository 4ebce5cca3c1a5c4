"""Web service that calls Predict: one asynchronous client for all requests, closed at the end.

    pip install 'mlpserve[client]' fastapi uvicorn
    MLPSERVE_TARGET=localhost:50051 uvicorn --app-dir examples --port 8080 fastapi_service:app
    curl --data-binary @examples/digit.bin localhost:8080/classify

At SIGTERM uvicorn takes no more requests and waits for those under way; then the lifespan ends.
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import numpy as np
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from mlpserve.client import (
    AsyncClient,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    TimeoutExceededError,
    UnavailableError,
)

TIMEOUT_S = 5
MAX_IMAGE_BYTES = 64 * 1024
# What the caller of this service is told, by what went wrong between it and the server.
STATUSES: list[tuple[type[ClientError], int]] = [
    (InvalidRequestError, 422),
    (NotFoundError, 404),
    (UnavailableError, 503),
    (TimeoutExceededError, 504),
    (ClientError, 502),
]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have one client while the service runs."""
    async with AsyncClient(os.environ["MLPSERVE_TARGET"], timeout_s=TIMEOUT_S) as client:
        app.state.client = client
        yield


def shared_client(request: Request) -> AsyncClient:
    """Return the client of the service; tests put another one in its place."""
    client: AsyncClient = request.app.state.client
    return client


app = FastAPI(lifespan=lifespan)
SharedClient = Annotated[AsyncClient, Depends(shared_client)]


@app.exception_handler(ClientError)
async def answer_error(_: Request, error: ClientError) -> JSONResponse:
    """Answer a failed call with a status of its own."""
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    # The server may have said when to come again.
    headers = (
        {} if error.retry_after_s is None else {"Retry-After": f"{math.ceil(error.retry_after_s)}"}
    )
    return JSONResponse({"error": str(error)}, status, headers)


@app.post("/classify")
async def classify(request: Request, client: SharedClient) -> dict[str, object]:
    """Classify one image, whose bytes are the body: one byte a value."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_IMAGE_BYTES:
            raise InvalidRequestError(f"the image: expected {MAX_IMAGE_BYTES} bytes at most")
    answer = await client.predict(np.frombuffer(body, np.uint8)[np.newaxis])
    label = int(answer.labels[0])
    return {
        "label": label,
        "probability": float(answer.probabilities[0, label]),
        "model": answer.model_name,
        "version": answer.model_version,
    }


@app.get("/healthz")
async def healthz(client: SharedClient) -> dict[str, str]:
    """Answer whether predictions can be had."""
    await client.wait_until_ready(timeout_s=1)
    return {"status": "ok"}
