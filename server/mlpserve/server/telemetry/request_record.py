"""Records of one request while it is answered, and of one pass of a network.

    arrived -- read --> read -- wait --> started -- pass --> computed -- replies --> ended

Metrics, statistics, the log and traces are made from these, so that all of them say the same. All
times are in nanoseconds by the recorder's clock.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


@dataclass(eq=False, slots=True)
class RequestRecord:
    """One request, as far as it has come.

    Attributes:
        method: The rpc.
        metadata: What the caller sent along: pairs of a key and a value.
        caller: Who asks, as a token says, or over which connection.
        remaining_s: So many seconds the caller waited when it came.
        arrived_ns: When it came.
        read_ns: When it had been read.
        started_ns: When its network started.
        computed_ns: When its network was done.
        model: The name of the model that it asks; empty as long as it is not known.
        version: The version of it; 0 as long as it is not known.
    """

    method: str = ""
    metadata: Metadata = ()
    caller: str | bytes = ""
    remaining_s: float = math.inf
    arrived_ns: int = 0
    read_ns: int = 0
    started_ns: int = 0
    computed_ns: int = 0
    model: str = ""
    version: int = 0


class BatchTiming(NamedTuple):
    """Times of one pass of a network, and of the requests that it answered.

    Attributes:
        requests: How many they were.
        images: How many images they had together.
        arrived_ns: The sum of the times when each arrived.
        read_ns: The sum of the times when each had been read.
        started_ns: When the pass started.
        ended_ns: When it ended.
    """

    requests: int
    images: int
    arrived_ns: int
    read_ns: int
    started_ns: int
    ended_ns: int
