"""What is served, as metrics."""

from typing import Final

from mlpserve.server.models.controller import Controller
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, Series

_RESULTS: Final = {True: "loaded", False: "failed"}


def lifecycle_snapshot(controller: Controller) -> MetricsSnapshot:
    """Return what a controller has brought about; safe to call from any thread."""
    models = controller.plan.models
    served: Series = [([name], len(model.versions)) for name, model in models.items()]
    quarantined: Series = [([name], len(model.quarantined)) for name, model in models.items()]
    loads: Series = [
        ([name, _RESULTS[is_loaded]], count)
        for (name, is_loaded), count in controller.loads.copy().items()
    ]
    return {
        metrics.GENERATION.name: [([], controller.generation)],
        metrics.SERVED_VERSIONS.name: served,
        metrics.QUARANTINED_VERSIONS.name: quarantined,
        metrics.LOADS.name: loads,
    }
