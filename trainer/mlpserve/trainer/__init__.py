"""The batch job that trains a network and publishes it as a new version.

Everything about learning is here: derivatives, optimizers, schedules, recipes. The network itself
and its file are `mlpserve.model`'s, the images `mlpserve.datasets`'s.
"""

try:
    import threadpoolctl  # noqa: F401 - asked for here, where the answer to its absence can be given
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "mlpserve.trainer needs threadpoolctl and more: pip install 'mlpserve[trainer]'"
    ) from error
