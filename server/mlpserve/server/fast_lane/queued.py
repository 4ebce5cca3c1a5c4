"""The calls of all hot methods that wait: one queue, so that they go through a network together.

For the lane's thread only.
"""

from mlpserve.server.batching import answer_together
from mlpserve.server.compiled import Workspace
from mlpserve.server.errors import UnauthenticatedError
from mlpserve.server.fast_lane.lane import HotCall
from mlpserve.server.lifecycle.shadow import Shadow
from mlpserve.server.row_queue import RowQueue
from mlpserve.server.security.tokens import Tokens
from mlpserve.server.statuses import Calls


class QueuedCalls:
    """Answers what is in a queue.

    Args:
        queue: Used by this lane only.
        workspace: Used by this lane only.
        calls: Used by this lane only.
        tokens: Whose tokens calls must carry; None for anybody's call.
        shadow: What compares the answers; None for nothing.
    """

    def __init__(
        self,
        queue: RowQueue,
        workspace: Workspace,
        calls: Calls,
        *,
        tokens: Tokens | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._queue = queue
        self._workspace = workspace
        self._calls = calls
        self._tokens = tokens
        self._shadow = shadow

    def __bool__(self) -> bool:
        """Return whether any call waits for its answer."""
        return bool(self._queue)

    def admits(self, call: HotCall) -> bool:
        """Return whether a call carries the right token, where it must; refuse it otherwise."""
        if self._tokens is not None:
            try:
                call.caller = self._tokens.caller(call.metadata) or call.caller
            except UnauthenticatedError as error:
                record = self._calls.recorder.arrived(call.method, call.metadata)
                call.fail(*self._calls.refusal(record, error))
                return False
        return True

    def work(self) -> None:
        """Answer, in one pass, the calls whose turn it is."""
        queue, recorder = self._queue, self._calls.recorder
        passage = answer_together(
            queue.take(), self._workspace, queue.statistics, recorder, self._shadow
        )
        queue.learn_pace(passage)
