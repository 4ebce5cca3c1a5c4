"""What is known of one request while it is answered; metrics, log and traces are made from it."""

import math
from collections.abc import Sequence
from typing import TypeAlias

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class RequestRecord:
    """What is known of one request.

    Attributes:
        method: The rpc.
        metadata: What the caller sent along: pairs of a key and a value.
        caller: Who asks, as a token says, or over which connection.
        remaining_s: So many seconds the caller waited when it came.
        arrived_s: When it came, by the recorder's clock.
        started_s: When its network started.
        computed_s: When its network was done.
        model: The name of the model that it asks; empty as long as it is not known.
        version: The version of it; 0 as long as it is not known.
    """

    __slots__ = (
        "arrived_s",
        "caller",
        "computed_s",
        "metadata",
        "method",
        "model",
        "remaining_s",
        "started_s",
        "version",
    )

    def __init__(
        self,
        method: str = "",
        metadata: Metadata = (),
        *,
        arrived_s: float = 0.0,
        caller: str | bytes = "",
        remaining_s: float = math.inf,
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.caller = caller
        self.remaining_s = remaining_s
        self.arrived_s = self.started_s = self.computed_s = arrived_s
        self.model = ""
        self.version = 0

    def asks(self, model: str, version: int) -> None:
        """Note which model it is for, now that this is known."""
        self.model = model
        self.version = version
