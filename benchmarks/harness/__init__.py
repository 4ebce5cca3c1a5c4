"""Harness of the benchmarks: the machine, its noise, turns, medians and tables.

Knows nothing of what is measured. The programs beside this folder do.
"""
