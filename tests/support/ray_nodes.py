"""Program: a Ray cluster of a head without processors, and nodes of one, told by lines what to do.

``add NAME`` and ``kill NAME`` are answered when they are done. Its end is that of standard input.
In a process of its own, because Ray leaves its own processes to whoever collects garbage.
"""

import os
import sys
import time
from typing import Any, Final

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# The server for ``ray://`` forks beside threads of gRPC, whose handlers of a fork some of its
# children do not survive (ray-project/ray#63202).
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from ray.cluster_utils import Cluster

from quiet_ports import free_ports
from ray_start import be_patient

ANSWER: Final = "cluster: "
_MEMORY: Final = {"object_store_memory": 100_000_000}
# Of each node. Where they are not given, Ray waits 15 s for its agents to tell them, or fails.
_PORTS: Final = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)
_MAX_NODES: Final = 8


def main() -> None:
    """Start the head; its argument is the port of the server for ``ray://``."""
    be_patient()
    cluster = Cluster()
    ports = iter(free_ports(_MAX_NODES * len(_PORTS)))

    def add(**options: Any) -> Any:
        own_ports = dict(zip(_PORTS, ports, strict=False))
        return cluster.add_node(**_MEMORY, **own_ports, **options)

    add(num_cpus=0, include_dashboard=False, ray_client_server_port=int(sys.argv[1]))
    nodes: dict[str, Any] = {}
    print(f"{ANSWER}{cluster.address}", flush=True)
    for line in sys.stdin:
        action, name = line.split()
        if action == "add":
            nodes[name] = add(num_cpus=1)
        else:
            kill(cluster, nodes.pop(name))
        print(f"{ANSWER}{action} {name}", flush=True)
    cluster.shutdown()


def kill(cluster: Any, node: Any) -> None:
    """Kill a node; return when the cluster knows it."""
    cluster.remove_node(node, allow_graceful=False)
    while any(
        found["NodeID"] == node.node_id and found["Alive"]
        for found in cluster.global_state.node_table()
    ):
        time.sleep(0.1)


if __name__ == "__main__":
    main()
