"""Templates of the trainer's pages, compiled: imported by the warm parent of its commands.

To compile them takes longer than to train the small networks of most tests.
"""

from pathlib import Path

from mlpserve.trainer import report
from mlpserve.trainer.report import templates

for folder in report.__path__:
    for file in Path(folder).glob("*.html.jinja"):
        templates._environment().get_template(file.name)  # noqa: SLF001 - its cache
