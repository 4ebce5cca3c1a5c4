"""Participants of the training benchmark, and the tasks that each is given.

A module a participant, each with ``run(task, dataset)``. They are imported only in the process that
measures them, so that a library that is not installed is nobody else's concern.
"""
