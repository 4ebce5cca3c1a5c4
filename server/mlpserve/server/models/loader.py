"""Loads one version from its snapshot, and has it prove itself before it serves."""

import io
import logging

from mlpserve.model.errors import ModelError
from mlpserve.model.folder import VersionKey
from mlpserve.model.weights import read_model
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.self_test import reproducibility_problem, self_test
from mlpserve.server.models.plan import PassingProblem
from mlpserve.server.models.snapshots import SnapshotFile

logger = logging.getLogger(__name__)


def load_checked(descriptor: int, key: VersionKey, *, reproducible: bool) -> CompiledModel | str:
    """Load a version and check it: format, shapes, values, golden samples, on the path that serves.

    These passes warm it up as well.

    Args:
        descriptor: Of the snapshot of its weights file.
        key: Which version it is.
        reproducible: As ``CompiledModel`` has it; checked as well.

    Returns:
        The model; or why it cannot be served, in a sentence that may be shown to callers; see
        ``WorkerPool.prepare``.
    """
    try:
        return _load(descriptor, key, reproducible=reproducible)
    except ModelError as error:
        return str(error)
    except MemoryError:
        return PassingProblem("there is not enough memory left to load it; it is tried again")
    except Exception:  # no file may end the process or the thread that looks after the others
        logger.exception("%s: cannot be loaded", key)
        return "it cannot be loaded; the server's log has the cause"


def _load(descriptor: int, key: VersionKey, *, reproducible: bool) -> CompiledModel | str:
    loaded = read_model(io.BufferedReader(SnapshotFile(descriptor)))
    described = VersionKey(loaded.metadata.name, loaded.metadata.version)
    if described != key:
        return f"its file says that it is {described}; publish versions, do not copy them"
    model = CompiledModel(loaded, reproducible=reproducible)
    if (problem := self_test(model, loaded.golden)) is not None:
        return f"self-test: {problem}"
    if reproducible and (problem := reproducibility_problem(model)) is not None:
        return f"reproducible: cannot be promised with the BLAS of this machine: {problem}"
    return model
