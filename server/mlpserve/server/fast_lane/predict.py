"""What the fast lane does with the calls of Predict: collects them, and answers them together.

For the lane's thread only.
"""

from functools import partial

from mlpserve.server.batching import Outcome, Request, RowQueue, answer_together
from mlpserve.server.compiled import CompiledModel, Workspace
from mlpserve.server.errors import UnauthenticatedError
from mlpserve.server.fast_lane.lane import HotCall
from mlpserve.server.messages import PREDICT, Messages
from mlpserve.server.metrics.records import RequestRecord
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.statuses import Calls


class HotPredict:
    """Answers Predict in the fast lane.

    Args:
        messages: The contract.
        queue: Used by this lane only.
        workspace: Used by this lane only.
        calls: Used by this lane only.
        tokens: Whose tokens calls must carry; None for anybody's call.
    """

    def __init__(
        self,
        messages: Messages,
        queue: RowQueue,
        workspace: Workspace,
        calls: Calls,
        *,
        tokens: Tokens | None = None,
    ) -> None:
        self._messages = messages
        self._queue = queue
        self._workspace = workspace
        self._calls = calls
        self._recorder = calls.recorder
        self._tokens = tokens

    def __bool__(self) -> bool:
        """Return whether any call waits for its answer."""
        return bool(self._queue)

    def admits(self, call: HotCall) -> bool:
        """Return whether a call carries the right token, where it must; refuse it otherwise."""
        if self._tokens is not None:
            try:
                self._tokens.caller(call.metadata)
            except UnauthenticatedError as error:
                record = self._recorder.arrived("Predict", call.metadata)
                call.fail(*self._calls.refusal(record, error))
                return False
        return True

    def accept(self, data: bytes, call: HotCall) -> None:
        """Let a call wait for its turn, or refuse it."""
        record = self._recorder.arrived("Predict", call.metadata)
        try:
            model, images = self._messages.images(PREDICT, data)
            record.asks(model.metadata.name, model.metadata.version)
            reply = partial(self._reply, call, record, model)
            self._queue.put(Request(model, images, call.is_wanted, reply, record))
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*self._calls.refusal(record, error))

    def work(self) -> None:
        """Answer, in one pass, the calls whose turn it is."""
        answer_together(self._queue.take(), self._workspace, self._recorder)

    def _reply(
        self, call: HotCall, record: RequestRecord, model: CompiledModel, outcome: Outcome
    ) -> None:
        if isinstance(outcome, Exception):
            call.fail(*self._calls.refusal(record, outcome))
        else:
            call.answer(self._messages.answer(PREDICT, model, outcome))
            self._recorder.answered(record)
