"""Application for Ray Serve, built from the arguments of `serve run` or of a YAML file."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlpserve.server.ray_serve.arguments import read_arguments

if TYPE_CHECKING:  # it is not installed everywhere
    from ray.serve import Application


def app(arguments: Mapping[str, object]) -> "Application":
    """Return the application, for `serve run mlpserve.server.ray_serve:app models=/models`.

    Args:
        arguments: Settings of ``Replicas``, and those of ``ServerConfig`` that concern models and
            requests; texts mean what they mean as flags.

    Raises:
        StartError: Arguments are none, or cannot be used; all of them are named.
        ModuleNotFoundError: Ray is not installed.
    """
    if find_spec("ray") is None or find_spec("ray.serve") is None:
        raise ModuleNotFoundError(
            "mlpserve.server.ray_serve needs Ray: pip install 'mlpserve[ray,server]'"
        )
    # Only now, because it is installed only where it is wanted.
    from mlpserve.server.ray_serve.replica import deployment  # noqa: PLC0415

    replicas, config = read_arguments(arguments)
    return deployment(replicas, config)
