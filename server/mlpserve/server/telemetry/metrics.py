"""Metrics: their names, what they mean, their labels.

Few labels, and only values that the server gives them itself: what a caller makes up, such as the
name of a model that there is not, never becomes one, or callers could fill the memory.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """Description of a metric.

    Attributes:
        name: Its name, with the base unit at the end, and ``_total`` after that for a counter.
        kind: Of Prometheus's kinds.
        help: What it is, in a line.
        labels: The names of its labels.
        bounds: Of a histogram, the upper bounds of its buckets; values above all have one more.
        is_alike: Whether all processes have the same value; otherwise theirs are added up.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    is_alike: bool = False


SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
ROWS: Final = tuple(float(2**exponent) for exponent in range(14))

REQUESTS: Final = Metric(
    "mlpserve_requests_total",
    "counter",
    "Requests that have ended, by status; of a stream, its batches. Model and version are empty "
    "where a request was refused before they were known.",
    ("method", "model", "version", "code"),
)
REQUEST_SECONDS: Final = Metric(
    "mlpserve_request_seconds",
    "histogram",
    "Time of answered requests, from when the server took them up until it handed on the answer.",
    ("method", "model"),
    SECONDS,
)
QUEUE_SECONDS: Final = Metric(
    "mlpserve_queue_seconds",
    "histogram",
    "The part of that time in which a request was read and waited for its turn.",
    ("method", "model"),
    SECONDS,
)
COMPUTE_SECONDS: Final = Metric(
    "mlpserve_compute_seconds",
    "histogram",
    "The part of that time in which the network ran, for all requests that it ran for together.",
    ("method", "model"),
    SECONDS,
)
BATCH_ROWS: Final = Metric(
    "mlpserve_batch_rows",
    "histogram",
    "Images that went through a network together. The sum is the number of images.",
    ("model",),
    ROWS,
)
QUEUE_ROWS: Final = Metric(
    "mlpserve_queue_rows",
    "gauge",
    "Images that wait for their turn; one that is to be explained counts as its steps.",
)
QUEUE_REQUESTS: Final = Metric(
    "mlpserve_queue_requests", "gauge", "Requests that wait for their turn."
)
SHADOW_ROWS: Final = Metric(
    "mlpserve_shadow_rows_total",
    "counter",
    "Images that a shadow classified as well, by whether it gave the label of the answer.",
    ("model", "version", "agrees"),
)
LOADS: Final = Metric(
    "mlpserve_loads_total",
    "counter",
    "Versions that were loaded, or could not be, by result: loaded or failed.",
    ("model", "result"),
)
SERVED_VERSIONS: Final = Metric(
    "mlpserve_served_versions", "gauge", "Versions that are served.", ("model",), is_alike=True
)
QUARANTINED_VERSIONS: Final = Metric(
    "mlpserve_quarantined_versions",
    "gauge",
    "Versions that are in the models folder but failed their checks.",
    ("model",),
    is_alike=True,
)
GENERATION: Final = Metric(
    "mlpserve_generation",
    "gauge",
    "The number of the latest plan of what is to be served; grows with each change.",
    is_alike=True,
)
WORKERS: Final = Metric(
    "mlpserve_workers", "gauge", "Processes that serve, and answered this scrape."
)
DEATHS: Final = Metric(
    "mlpserve_worker_deaths_total", "counter", "Workers that died and were replaced."
)
HANGS: Final = Metric(
    "mlpserve_worker_hangs_total",
    "counter",
    "Of the workers that died, those that were ended because they gave no heartbeat.",
)
SCRAPES_MISSED: Final = Metric(
    "mlpserve_worker_scrapes_missed_total",
    "counter",
    "Times that a worker was asked for its metrics and did not answer within a second. Its counts "
    "are then those of its last answer.",
)
SYNC_RESTARTS: Final = Metric(
    "mlpserve_sync_restarts_total",
    "counter",
    "Times that the process that copies models from an object store ended and was started again.",
)
LOG_LINES_DROPPED: Final = Metric(
    "mlpserve_log_lines_dropped_total",
    "counter",
    "Lines that could not be written to the log, because it was full, closed or slow.",
)
CPU_SECONDS: Final = Metric(
    "mlpserve_process_cpu_seconds_total", "counter", "Processor time used.", ("process",)
)
RESIDENT_BYTES: Final = Metric(
    "mlpserve_process_resident_bytes",
    "gauge",
    "Memory in use. Weights that several processes share count in each.",
    ("process",),
)
OPEN_DESCRIPTORS: Final = Metric(
    "mlpserve_process_open_descriptors", "gauge", "Open files and connections.", ("process",)
)
THREADS: Final = Metric("mlpserve_process_threads", "gauge", "Threads.", ("process",))
INFO: Final = Metric(
    "mlpserve_info", "gauge", "Always 1; the release is in the label.", ("release",), is_alike=True
)

# Not on the page, because other protocols tell them; their values are the fields of tuples.
BATCH_COUNTS: Final = Metric(
    "batch_counts", "counter", "``BatchCounts``.", ("model", "version", "size")
)
FAILURE_COUNTS: Final = Metric(
    "failure_counts", "counter", "``FailureCounts``.", ("model", "version")
)
LAST_BATCH: Final = Metric(
    "last_batch_ms",
    "gauge",
    "When a network ran last, in milliseconds since 1970.",
    ("model", "version"),
    is_alike=True,
)
SHADOW_COUNTS: Final = Metric(
    "shadow_counts", "counter", "``ShadowCounts``.", ("model", "answering", "shadow")
)
INTERNAL: Final = (BATCH_COUNTS, FAILURE_COUNTS, LAST_BATCH, SHADOW_COUNTS)

METRICS: Final = (
    *(REQUESTS, REQUEST_SECONDS, QUEUE_SECONDS, COMPUTE_SECONDS, BATCH_ROWS),
    *(QUEUE_ROWS, QUEUE_REQUESTS, SHADOW_ROWS),
    *(LOADS, SERVED_VERSIONS, QUARANTINED_VERSIONS, GENERATION, WORKERS, DEATHS, HANGS),
    *(SCRAPES_MISSED, SYNC_RESTARTS),
    *(LOG_LINES_DROPPED, CPU_SECONDS, RESIDENT_BYTES, OPEN_DESCRIPTORS, THREADS, INFO),
)
