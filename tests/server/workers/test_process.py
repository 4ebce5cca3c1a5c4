"""Process of a worker, as its supervisor sees it: where all its threads run."""

import os
import sys
from pathlib import Path

import pytest

from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.workers.process import WorkerProcess
from mlpserve.server.workers.processors import Place
from mlpserve.server.workers.shared_generation import SharedGeneration

LIGHT_WORKER = Path(__file__).with_name("light_worker.py")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_all_threads_of_a_worker_move_with_it(tmp_path: Path) -> None:
    own, *others = sorted(os.sched_getaffinity(0))
    generation = SharedGeneration.create()
    worker = WorkerProcess(
        ServerConfig(models=tmp_path),
        generation,
        processor=own,
        handlers={},
        on_end=lambda: None,
        command=(sys.executable, str(LIGHT_WORKER)),
    )
    try:
        worker.begin()  # it has a second thread then
        for place in (Place(preempts=False), Place(frozenset(others)), Place()):
            worker.move(place)
            threads = [int(each.name) for each in Path(f"/proc/{worker.process_id}/task").iterdir()]
            assert len(threads) > 1
            policy = os.SCHED_OTHER if place.preempts else os.SCHED_BATCH
            assert {os.sched_getscheduler(thread) for thread in threads} == {policy}
            processors = {frozenset(os.sched_getaffinity(thread)) for thread in threads}
            assert processors == {place.borrowed | {own}}
    finally:
        worker.kill("the test is over")
        worker.wait(60.0)
        generation.close()
