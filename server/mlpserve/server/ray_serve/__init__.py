"""Ray Serve: the same rpcs, answered by replicas behind its gRPC proxy.

    client -- Ray's proxy: `proxy` -- bytes --> replica: `calls` -- services of `app`, batcher

A replica is a server of one process without ports: it looks after its models itself, and answers
with the same services. See docs/ray-serve.md.
"""

from mlpserve.server.ray_serve.application import app
from mlpserve.server.ray_serve.proxy import add_services_to_server

__all__ = ["add_services_to_server", "app"]
