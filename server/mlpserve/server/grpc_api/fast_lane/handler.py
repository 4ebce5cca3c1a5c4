"""Handler of the fast lane: admits calls, queues their requests, answers them in batches.

One queue for all hot methods, so that their requests go through a network together. For the lane's
thread only.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mlpserve.model.compiled import Workspace
from mlpserve.server.grpc_api.fast_lane.calls import HotCall
from mlpserve.server.inference.batcher import learn_pace, run_batch
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.registry import Router
from mlpserve.server.inference.request import Outcome, Parse, ParsedRequest
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.security.admission import Admission
from mlpserve.server.statuses import refuse
from mlpserve.server.telemetry.recorder import Recorder


class HotHandler:
    """Answers the calls of hot methods.

    Args:
        parsers: What reads the requests of each method, by the method's name without its service.
        router: Knows whose requests of a split belong together.
        queue: Used by this handler only.
        workspace: Used by this handler only.
        recorder: Used by this handler only.
        admission: Lets calls in.
        shadow: What compares the answers; None for nothing.
    """

    def __init__(
        self,
        parsers: Mapping[str, Parse],
        router: Router,
        *,
        queue: RowQueue,
        workspace: Workspace,
        recorder: Recorder,
        admission: Admission,
        shadow: Shadow | None = None,
    ) -> None:
        self._parsers = parsers
        self._router = router
        self._queue = queue
        self._workspace = workspace
        self._recorder = recorder
        self._admission = admission
        self._shadow = shadow

    def __bool__(self) -> bool:
        """Return whether any call waits for its answer."""
        return bool(self._queue)

    def admits(self, call: HotCall) -> bool:
        """Return whether a call is let in; refuse it otherwise."""
        try:
            call.caller = self._admission.enter(call.metadata, call.caller)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            self.refuse(call, error)
            return False
        return True

    def refuse(self, call: HotCall, error: Exception) -> None:
        """End a call, whose request was not accepted, with an error."""
        record = self._recorder.arrived(call.method, call.metadata)
        call.fail(*refuse(self._recorder, record, error))

    def ended(self, call: HotCall) -> None:
        """Make room for the next call."""
        self._admission.leave(call.caller)

    def accept(self, data: bytes, call: HotCall) -> None:
        """Queue the request of a call, or refuse it."""
        record = self._recorder.arrived(
            call.method, call.metadata, caller=call.caller, remaining_s=call.remaining_s()
        )
        try:
            key = self._router.key(call.metadata)
            request = self._parsers[call.method](data, record, key)
            metadata = request.model.metadata
            self._recorder.read(record, metadata.name, metadata.version)
            request.is_wanted = call.is_wanted
            request.on_outcome = partial(call.attempt, self._reply, call)
            self._queue.put(request)
        except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
            call.fail(*refuse(self._recorder, record, error))

    def work(self) -> None:
        """Answer, in one pass, the calls whose turn it is."""
        queue = self._queue
        timing = run_batch(queue.take(), self._workspace, self._recorder, self._shadow)
        learn_pace(queue, timing)

    def _reply(self, call: HotCall, request: ParsedRequest[Any], outcome: Outcome) -> None:
        if not isinstance(outcome, Exception):
            try:
                call.answer(request.encode(outcome))
                self._recorder.answered(request.record)
            except Exception as error:  # noqa: BLE001 - it is logged, and the caller told
                outcome = error
            else:
                return
        call.fail(*refuse(self._recorder, request.record, outcome))
