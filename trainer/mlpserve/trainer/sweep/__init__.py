"""Sweeps: trainings that differ in some settings, the worse ones stopped early, the best published.

``command`` reads the flags and runs a sweep from its beginning to its end; ``schedule`` decides
which trial runs next, ``workers`` run trials on this machine, ``ray_tune`` on a cluster.
"""
