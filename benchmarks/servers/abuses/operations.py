"""What happens to a server beside its callers: models that come, go and break, workers that die."""

import os
import random
import shutil
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from mlpserve.model.folder import versions, weights_path
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from servers.abuses.abuse import Abuse, Target
from servers.networks import random_model
from servers.processes import family

_NAME: Final = "restless"
_NETWORK: Final = (784, 16, 10)
_KEPT: Final = 3


class RestlessVersions(Abuse):
    """Versions of another model that come and go."""

    what = "versions of another model published, and older ones removed"
    per_s = 0.3

    def __init__(self, target: Target, rng: random.Random) -> None:
        super().__init__(target, rng)
        model = random_model(_NETWORK)
        self._model = Model(model.network, replace(model.metadata, name=_NAME))

    def act(self) -> Iterable[str]:
        """Publish one, and remove what is too old."""
        publish(self.target.models, self._model)
        yield "published"
        for old in versions(self.target.models, _NAME)[_KEPT:]:
            shutil.rmtree(weights_path(self.target.models, _NAME, old).parent)
            yield "removed"


class BrokenInPlace(Abuse):
    """Weights of that model that are written over while they are served."""

    what = "weights of that model replaced in place by random bytes"
    per_s = 0.2

    def act(self) -> Iterable[str]:
        """Break one."""
        there = versions(self.target.models, _NAME)
        if not there:
            return ["none there"]
        weights = weights_path(self.target.models, _NAME, self.rng.choice(there))
        with suppress(FileNotFoundError):  # removed meanwhile
            weights.write_bytes(self.rng.randbytes(5000))
        return ["broken"]


class WorkersKilled(Abuse):
    """A worker that is killed now and then, in the first half: a new one has a small memory."""

    what = "kill -9 of a worker; in the first half only"
    per_s = 0.04
    during = 0.5

    def act(self) -> Iterable[str]:
        """Kill one."""
        workers = [each for each in family(self.target.process_id)[1:] if _is_worker(each)]
        if not workers:
            return ["none there"]
        os.kill(self.rng.choice(workers), signal.SIGKILL)
        return ["killed"]


def _is_worker(process_id: int) -> bool:
    try:
        with open(f"/proc/{process_id}/cmdline") as file:  # noqa: PTH123 - no path of ours
            return "server.workers.worker" in file.read()
    except OSError:
        return False


ABUSES: Final = (RestlessVersions, BrokenInPlace, WorkersKilled)
