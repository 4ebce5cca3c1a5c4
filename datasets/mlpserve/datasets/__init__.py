"""Labelled images to train on and to be judged by: MNIST, drawn digits, or files of your own.

Programs ask ``load_dataset`` and ``load_test_split``; the modules below know the formats and the
particular data sets.
"""

from mlpserve.datasets.dataset import Dataset, DatasetError, Split
from mlpserve.datasets.source import load_dataset, load_test_split

__all__ = ["Dataset", "DatasetError", "Split", "load_dataset", "load_test_split"]
