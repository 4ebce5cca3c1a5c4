"""What the fast lane does with the calls of Predict: collects them, and answers them together.

For the lane's thread only.
"""

from functools import partial

from mlpserve.server.batching import Outcome, Request, RowQueue, answer_together
from mlpserve.server.compiled import CompiledModel, Workspace
from mlpserve.server.errors import UnauthenticatedError
from mlpserve.server.fast_lane.lane import HotCall
from mlpserve.server.lifecycle.shadow import Shadow
from mlpserve.server.messages import PREDICT, Messages
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.statuses import refusal


class HotPredict:
    """Answers Predict in the fast lane.

    Args:
        messages: The contract.
        queue: Used by this lane only.
        workspace: Used by this lane only.
        tokens: Whose tokens calls must carry; None for anybody's call.
        shadow: What compares the answers; None for nothing.
    """

    def __init__(
        self,
        messages: Messages,
        queue: RowQueue,
        workspace: Workspace,
        *,
        tokens: Tokens | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._messages = messages
        self._queue = queue
        self._workspace = workspace
        self._tokens = tokens
        self._splitter = messages.splitter
        self._shadow = shadow

    def __bool__(self) -> bool:
        """Return whether any call waits for its answer."""
        return bool(self._queue)

    def admits(self, call: HotCall) -> bool:
        """Return whether a call carries the right token, where it must; refuse it otherwise."""
        if self._tokens is not None:
            try:
                self._tokens.caller(call.metadata)
            except UnauthenticatedError as error:
                call.fail(*refusal("Predict", error))
                return False
        return True

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait for its turn, or refuse it."""
        try:
            key = None if self._splitter is None else self._splitter.key(call.metadata)
            model, images = self._messages.images(PREDICT, data, key)
            reply = partial(self._reply, call, model)
            self._queue.put(Request(model, images, call.is_wanted, reply))
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*refusal("Predict", error))

    def work(self) -> None:
        """Answer, in one pass, the calls whose turn it is."""
        answer_together(self._queue.take(), self._workspace, self._shadow)

    def _reply(self, call: HotCall, model: CompiledModel, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            call.fail(*refusal("Predict", outcome))
        else:
            call.answer(self._messages.answer(PREDICT, model, outcome))
