"""Comparison of two published versions on the same test images, for ``mlpserve-models compare``."""
