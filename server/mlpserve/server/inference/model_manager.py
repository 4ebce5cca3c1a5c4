"""Who decides which models are served, as those see it who are asked to change that.

Where one process serves, that is its `controller`. Where several do, it is their supervisor's, and
workers reach it through their conversation.
"""

from typing import Protocol


class Manager(Protocol):
    """Changes what is served; see ``Controller``. Safe to use from many threads."""

    def load(self, name: str, version: int = 0) -> None:
        """Serve a model, or one more version of it."""

    def unload(self, name: str, version: int = 0) -> None:
        """Serve a model, or one version of it, no longer."""

    def reload(self) -> bool:
        """Look into the models folder; return whether anything changed."""
