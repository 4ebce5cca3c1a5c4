"""The report of a version: one HTML file that shows what its network learned.

It opens from disk with no network, and needs no script. Knows neither files nor training.
"""

from mlpserve.trainer.report.page import render_report

__all__ = ["render_report"]
