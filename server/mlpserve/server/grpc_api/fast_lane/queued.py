"""The calls of all hot methods that wait: one queue, so that they go through a network together.

For the lane's thread only.
"""

from mlpserve.server.errors import OverloadedError, UnauthenticatedError
from mlpserve.server.grpc_api.fast_lane.lane import HotCall
from mlpserve.server.inference.batcher import answer_together
from mlpserve.server.inference.compiled import Workspace
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.security.admission import Admission
from mlpserve.server.statuses import Calls


class QueuedCalls:
    """Answers what is in a queue.

    Args:
        queue: Used by this lane only.
        workspace: Used by this lane only.
        calls: Used by this lane only.
        admission: Lets calls in.
        shadow: What compares the answers; None for nothing.
    """

    def __init__(
        self,
        queue: RowQueue,
        workspace: Workspace,
        calls: Calls,
        admission: Admission,
        *,
        shadow: Shadow | None = None,
    ) -> None:
        self._queue = queue
        self._workspace = workspace
        self._calls = calls
        self._admission = admission
        self._shadow = shadow

    def __bool__(self) -> bool:
        """Return whether any call waits for its answer."""
        return bool(self._queue)

    def admits(self, call: HotCall) -> bool:
        """Return whether a call is let in; refuse it otherwise."""
        try:
            call.caller = self._admission.enter(call.metadata, call.caller)
        except (OverloadedError, UnauthenticatedError) as error:
            record = self._calls.recorder.arrived(call.method, call.metadata)
            call.fail(*self._calls.refusal(record, error))
            return False
        return True

    def ended(self, call: HotCall) -> None:
        """Make room for the next one."""
        self._admission.leave(call.caller)

    def work(self) -> None:
        """Answer, in one pass, the calls whose turn it is."""
        queue, recorder = self._queue, self._calls.recorder
        passage = answer_together(
            queue.take(), self._workspace, queue.statistics, recorder, self._shadow
        )
        queue.learn_pace(passage)
