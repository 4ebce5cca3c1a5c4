"""The batch job that trains a network and publishes it as a new version.

Everything about learning is here: derivatives, optimizers, schedules, recipes. The network itself
and its file are `mlpserve.model`'s, the images `mlpserve.datasets`'s.
"""
