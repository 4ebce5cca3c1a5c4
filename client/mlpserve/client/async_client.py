"""The client for programs with an event loop: the same methods as ``Client``, to be awaited."""

from typing import Self

import grpc

from mlpserve.client.arguments import checked_credentials, checked_text
from mlpserve.client.async_batching import DEFAULT_MAX_DELAY_S, AsyncBatchingClient
from mlpserve.client.async_transport import AsyncTransport
from mlpserve.client.channel import checked_target
from mlpserve.client.core import Core
from mlpserve.client.sending import DEFAULT_TIMEOUT_S, Sender
from mlpserve.client.shared_requests import DEFAULT_MAX_ROWS


class AsyncClient(Core):
    """Calls an mlpserve server from coroutines; close it when done.

    It is like ``Client`` in all else: arguments, results, errors, retries, balancing. It belongs
    to the event loop of its first call, and can be made before there is one.

    Args:
        target: As for ``Client``.
        timeout_s: As for ``Client``.
        credentials: As for ``Client``.
        token: As for ``Client``.
        checks_health: As for ``Client``.
        hedge_after_s: As for ``Client``.

    Raises:
        InvalidRequestError: An argument is out of its range.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = "",
        checks_health: bool | None = None,
        hedge_after_s: float | None = None,
    ) -> None:
        target = checked_target(checked_text(target, "target"))
        self._transport = AsyncTransport(
            target, checked_credentials(credentials), checks_health=checks_health
        )
        sender = Sender(
            target,
            self._transport,
            timeout_s=timeout_s,
            token=token,
            hedge_after_s=hedge_after_s,
        )
        super().__init__(sender)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that are under way end with an error."""
        await self._transport.close()

    def batching(
        self,
        *,
        max_rows: int | None = DEFAULT_MAX_ROWS,
        max_delay_s: float | None = DEFAULT_MAX_DELAY_S,
    ) -> AsyncBatchingClient:
        """Return an object whose ``predict`` joins the calls of many coroutines into one request.

        Worth it where many coroutines ask for an image or a few: a request costs this program a
        tenth of a millisecond, however many images it has.

        Args:
            max_rows: The most images to send as one request, up to 1024. A call with as many or
                more is sent alone. Not more than the server's ``ModelInfo.max_batch_images``.
            max_delay_s: Seconds that a call waits for others at most; 0 joins only calls that are
                made before the event loop turns.

        Raises:
            InvalidRequestError: An argument is out of its range.
        """
        return AsyncBatchingClient(self, self._sender, max_rows=max_rows, max_delay_s=max_delay_s)
