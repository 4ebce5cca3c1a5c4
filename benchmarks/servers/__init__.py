"""The serving benchmark: who takes part, the load, and what is reported.

`programs/` holds the peers' side, each file for the environment of its peer. None of it is imported
here.
"""
