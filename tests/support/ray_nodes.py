"""Program: a Ray cluster of a head without processors, and nodes of one, told by lines what to do.

``add NAME`` and ``kill NAME`` are answered when they are done. Its end is that of standard input.
In a process of its own, because Ray leaves its own processes to whoever collects garbage.
"""

import os
import sys
from typing import Any, Final

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# The server for ``ray://`` forks beside threads of gRPC, whose handlers of a fork some of its
# children do not survive (ray-project/ray#63202).
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from ray.cluster_utils import Cluster

ANSWER: Final = "cluster: "
_MEMORY: Final = {"object_store_memory": 100_000_000}


def main() -> None:
    """Start the head; its argument is the port of the server for ``ray://``."""
    cluster = Cluster()
    port = int(sys.argv[1])
    cluster.add_node(num_cpus=0, include_dashboard=False, ray_client_server_port=port, **_MEMORY)
    nodes: dict[str, Any] = {}
    print(f"{ANSWER}{cluster.address}", flush=True)
    for line in sys.stdin:
        action, name = line.split()
        if action == "add":
            nodes[name] = cluster.add_node(num_cpus=1, **_MEMORY)
        else:
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        print(f"{ANSWER}{action} {name}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
