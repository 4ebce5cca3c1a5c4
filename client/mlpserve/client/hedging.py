"""Hedging: a call that is not answered soon is made once more, and the first answer counts.

gRPC's own hedging policy is not in its core (1.85): a service config with one is taken without a
word, and nothing is sent twice.
Source: Dean and Barroso, The Tail at Scale (2013); gRPC proposal A6.
"""

from typing import Final

import grpc

from mlpserve.client.transports import Metadata, Transport

# Larger ones cost the servers more than a late answer costs the caller.
_MAX_HEDGED_BYTES: Final = 64 * 1024
# So many calls in a row may be made twice, and after them one of ten: where all answers are late,
# the servers have too much to do already.
_MAX_TOKENS: Final = 10.0
_TOKENS_PER_CALL: Final = 0.1


class Hedging:
    """Makes calls twice that are not answered soon. Safe to use from many threads.

    Args:
        transport: The way to the server. Its balancer sends the second call to another server,
            where there is one.
        after_s: Seconds without an answer.
    """

    def __init__(self, transport: Transport, after_s: float) -> None:
        self._transport = transport
        self._after_s = after_s
        self._tokens = _MAX_TOKENS

    async def ask(self, method: str, request: bytes, timeout_s: float, metadata: Metadata) -> bytes:
        """Return the first answer; see ``Transport.ask``."""
        if len(request) > _MAX_HEDGED_BYTES:
            return await self._transport.ask(method, request, timeout_s, metadata)
        self._tokens = min(_MAX_TOKENS, self._tokens + _TOKENS_PER_CALL)
        call = self._transport.start(method, request, timeout_s, metadata)
        is_over = await self._transport.first([call], min(self._after_s, timeout_s))
        if is_over or self._tokens < 1 or timeout_s <= self._after_s:
            return await call.answer()
        self._tokens -= 1
        left_s = timeout_s - self._after_s
        calls = [call, self._transport.start(method, request, left_s, metadata)]
        try:
            while True:
                # The calls have the deadline themselves.
                over = await self._transport.first(calls, timeout_s)
                if over is None:
                    continue
                calls.remove(over)
                try:
                    return await over.answer()
                except grpc.RpcError:
                    if not calls:
                        raise
        finally:
            for each in calls:
                each.cancel()
