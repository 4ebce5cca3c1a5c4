"""What a supervisor and its workers say to each other; `conversation` carries it.

The first message comes from the supervisor and is no call: the settings, and with them the board.
All further ones are calls by the names below. Needs neither NumPy nor gRPC.
"""

from dataclasses import dataclass
from typing import Final

from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.settings.declarations import from_plain_values, plain_values
from mlpserve.server.workers.connection import Content

# To a worker:
BEGIN: Final = "begin"  # is answered as soon as the worker can take orders
LOAD: Final = "load"  # a version, from the snapshot that comes along; returns what is wrong with it
PREPARE: Final = "prepare"  # a generation, all versions of which are loaded
OPEN: Final = "open"  # listen, and answer calls; returns what answers Predict, in words
FOLLOW: Final = "follow"  # the board's number was changed: forget what was before
LOOK: Final = "look"  # now, whether certificates or tokens changed
METRICS: Final = "metrics"  # return what was counted so far
SIGN: Final = "sign"  # is answered at once by a process that runs
# To the supervisor:
MANAGE: Final = "manage"  # load, unload or reload models
TOTALS: Final = "totals"  # return what all processes have counted


@dataclass(frozen=True)
class Settings:
    """How a worker is to serve.

    Attributes:
        config: As all others do.
        processor: The only one that it may use; None for any.
    """

    config: ServerConfig
    processor: int | None

    def to_content(self) -> Content:
        """Return what JSON can carry."""
        return {"config": plain_values(self.config), "processor": self.processor}

    @classmethod
    def from_content(cls, content: Content) -> "Settings":
        """Return the settings that ``to_content`` wrote."""
        config = from_plain_values(ServerConfig, content["config"])
        return cls(config, processor=content["processor"])
