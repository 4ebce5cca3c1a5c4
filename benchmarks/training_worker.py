"""One measured process of the training benchmark: a task in, one line of JSON out.

`training.py` starts it. By hand it takes a task as ``Task.to_json`` writes it.
"""

import importlib
import json
import sys
from dataclasses import asdict

from harness.rounds import pin_to_processors
from trainers.participants import PARTICIPANTS
from trainers.tasks import Task


def main() -> None:
    """Do the task that the only argument describes, and print its outcome."""
    task = Task.from_json(sys.argv[1])
    pin_to_processors(task.threads)
    # Only now: what is imported before sizes its pools of threads by the whole machine.
    datasets = importlib.import_module("mlpserve.datasets")
    run = PARTICIPANTS[task.participant].load()
    print(json.dumps(asdict(run(task, datasets.load_dataset(task.data, data_dir=None)))))


if __name__ == "__main__":
    main()
