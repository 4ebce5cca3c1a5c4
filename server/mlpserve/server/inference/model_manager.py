"""Model manager: how the endpoints ask for models to be loaded, unloaded or reloaded.

Needs no NumPy, because the supervisor of worker processes has one as well.
"""

from typing import Protocol


class ModelManager(Protocol):
    """Changes what is served, when a caller asks for it. Safe to use from many threads.

    Where one process serves, it is the controller of that; where several do, that of their
    supervisor, which workers ask.
    """

    def load(self, name: str, version: int = 0) -> None:
        """Serve a model, or one more version of it."""

    def unload(self, name: str, version: int = 0) -> None:
        """Serve a model, or one version of it, no longer."""

    def reload(self) -> bool:
        """Look into the models folder; return whether anything changed."""
