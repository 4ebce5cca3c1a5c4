"""How a process that serves is observed: its counters, its log of requests, its traces."""

from mlpserve.server.errors import StartError
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.statuses import Calls
from mlpserve.server.telemetry.metrics.counters import Counters
from mlpserve.server.telemetry.metrics.measures import Measures
from mlpserve.server.telemetry.metrics.recorder import Recorder, Tracer
from mlpserve.server.telemetry.request_log import RequestLog


class Observation:
    """What all adapters of a process are observed by.

    Args:
        config: Says whether to trace.

    Raises:
        StartError: It is to trace, but the packages for that are missing.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.measures = Measures()
        self._log = RequestLog()
        self._tracer = _tracer() if config.tracing else None

    def calls_of_one_thread(self) -> Calls:
        """Return what observes the calls of an adapter that has one thread."""
        return self._calls(self.measures.own_counters())

    def calls_of_many_threads(self) -> Calls:
        """Return what observes the calls of adapters that have many threads."""
        return self._calls(self.measures.shared_counters())

    def close(self) -> None:
        """Pass on what was not passed on yet."""
        if self._tracer is not None:
            self._tracer.close()

    def _calls(self, counters: Counters) -> Calls:
        return Calls(Recorder(counters, tracer=self._tracer), self._log)


def _tracer() -> Tracer:
    try:
        # Not before it is asked for: it takes a tenth of a second, and packages of its own.
        from mlpserve.server.telemetry.tracing import SpanTracer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartError(
            f"tracing: needs {error.name}: pip install 'mlpserve[server,tracing]'"
        ) from error
    return SpanTracer()
