"""Who takes part in the training benchmark, and what each is asked to do.

A module a participant, each with ``run(task, dataset)``. They are imported only in the process that
measures them, so that a library that is not installed is nobody else's concern.
"""
