"""Health of a server: asked for once, or until it serves."""

import time
from typing import Final

from mlpserve.client.arguments import checked_text
from mlpserve.client.errors import NotFoundError, TimeoutExceededError, UnavailableError
from mlpserve.client.requests import ModelSelector
from mlpserve.client.results import HealthStatus, read_health
from mlpserve.client.sending import Sender, remaining_s
from mlpserve.client.transports import HEALTH

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_TIMEOUT_S: Final = 2.0


async def ask_health(
    sender: Sender, service: str | None = None, *, timeout_s: float | None
) -> HealthStatus:
    """Return the health of a service, or of the server as a whole; see ``Client.health``."""
    # Field 1 of a HealthCheckRequest is a text, as the first of a ListModels's model.
    named = ModelSelector(checked_text(service, "service")).encoded
    return read_health(await sender.call(HEALTH, named, timeout_s))


async def wait_until_ready(sender: Sender, *, timeout_s: float | None) -> None:
    """Wait until the server serves; see ``Client.wait_until_ready``."""
    deadline_s = sender.deadline_s(timeout_s)
    pause_s = _FIRST_PAUSE_S
    while True:
        allowed_s = min(_TIMEOUT_S, remaining_s(deadline_s))
        try:
            status = await ask_health(sender, timeout_s=max(allowed_s, _FIRST_PAUSE_S))
        except (UnavailableError, TimeoutExceededError, NotFoundError) as error:
            found = str(error)
        else:
            if status is HealthStatus.SERVING:
                return
            found = f"{sender.target}: the server says {status}"
        if time.monotonic() + pause_s >= deadline_s:
            raise TimeoutExceededError(f"{found}; the server was not ready in time")
        await sender.transport.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
