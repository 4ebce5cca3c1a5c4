"""Table of the participants, and where each is found. Imports none of them."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from trainers.tasks import Outcome


@dataclass(frozen=True)
class Participant:
    """Something that can be measured.

    Attributes:
        title: What tables call it.
        module: The module here that runs it.
        function: The function of that module: takes a task and a data set, returns an outcome.
        needs: The module that must be installed for it; None where the project itself will do.
        package: The name under which that is installed.
    """

    title: str
    module: str
    function: str = "run"
    needs: str | None = None
    package: str | None = None

    def is_installed(self) -> bool:
        """Return whether what it needs is there."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def load(self) -> Callable[..., Outcome]:
        """Return the function, whose import may take seconds and start threads."""
        module: ModuleType = importlib.import_module(self.module)
        function: Callable[[Any, Any], Outcome] = getattr(module, self.function)
        return function


LIBRARIES: Final[Mapping[str, Participant]] = {
    "mlpserve": Participant("mlpserve, NumPy", "trainers.ours"),
    "mlpserve-numba": Participant(
        "mlpserve, Numba", "trainers.ours", "run_numba", needs="numba", package="numba"
    ),
    "pytorch": Participant("PyTorch", "trainers.pytorch", needs="torch", package="torch"),
    "scikit-learn": Participant(
        "scikit-learn", "trainers.scikit_learn", needs="sklearn", package="scikit-learn"
    ),
    "jax": Participant("JAX", "trainers.jax_scan", needs="jax", package="jax"),
}
# The faster of our engines: what ratios are to.
OURS: Final = "mlpserve-numba" if LIBRARIES["mlpserve-numba"].is_installed() else "mlpserve"

SEED_FORMS: Final[Mapping[str, Participant]] = {
    "seed-fast": Participant("mlpserve, fast form (float32)", "trainers.ours", "run_seed_fast"),
    "seed": Participant("mlpserve, exact form (float64)", "trainers.ours", "run_seed"),
    "tutorial": Participant("the tutorial's code", "trainers.tutorial"),
    "pure-python": Participant("pure Python loops", "trainers.pure_python"),
}
FAST_FORM: Final = "seed-fast"
EXACT_FORM: Final = "seed"

PEAK: Final = "sgemm"
BEFORE: Final = "before"  # our trainer of another checkout
NUMPY_ENGINE: Final = "mlpserve"  # its name there, too
PARTICIPANTS: Final[Mapping[str, Participant]] = {
    **LIBRARIES,
    **SEED_FORMS,
    BEFORE: Participant("mlpserve, before", "trainers.ours"),
    PEAK: Participant("sgemm", "trainers.sgemm"),
}
