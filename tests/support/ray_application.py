"""Ray Serve with an application from a YAML file, on a cluster of its own, as users run them."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import ray
import yaml
from pydantic import PydanticDeprecatedSince20

from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc
from quiet_ports import free_ports

with warnings.catch_warnings():
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)  # Ray uses what pydantic gives up
    from ray import serve

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NAME = "mlpserve"  # of the application, and of its deployment
TIMEOUT_S = 240.0  # for what takes some seconds where nobody else is busy
MAX_MESSAGE_BYTES = 64 << 20
_PORTS = (
    "port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something that Ray tells nobody of."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.1)


@dataclass(frozen=True)
class RayServer:
    """An application that answers.

    Attributes:
        address: Of the proxy for gRPC.
        http: Of the proxy for HTTP.
        cluster: Of the cluster.
        models: The folder that it serves.
        config: The file that it was deployed from.
    """

    address: str
    http: str
    cluster: str
    models: Path
    config: Path

    def deploy(self, **arguments: Any) -> None:
        """Deploy it, again with other arguments; return when Ray knows that it has to."""
        config = yaml.safe_load(self.config.read_text())
        config["applications"][0]["args"] |= arguments
        self.config.write_text(yaml.safe_dump(config))
        command = [str(BIN / "serve"), "run", "--non-blocking", str(self.config)]
        environment = {**os.environ, "RAY_ADDRESS": self.cluster}
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S, env=environment)

    def replicas(self) -> int:
        """Return how many replicas run."""
        deployment = serve.status().applications[NAME].deployments.get(NAME)
        return 0 if deployment is None else int(deployment.replica_states.get("RUNNING", 0))

    def replica_names(self) -> set[str]:
        """Return the names of the processes of replicas, by which Ray finds them."""
        actors = ray.util.list_named_actors(all_namespaces=True)
        return {each["name"] for each in actors if f"::{NAME}#{NAME}#" in each["name"]}

    def kill_a_replica(self) -> None:
        """Kill the process of a replica, as a machine without memory would."""
        ray.kill(ray.get_actor(min(self.replica_names()), namespace="serve"))

    def answer(self) -> str:
        """Return the status of a request for the only model, and its name or what is wrong."""
        with grpc.insecure_channel(self.address) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            try:
                found = stub.GetModel(prediction_pb2.GetModelRequest(), timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
        return f"OK: {found.model.name}"


@contextmanager
def ray_head(folder: Path) -> Iterator[str]:
    """Run a cluster of one node; yield its address."""
    ports = free_ports(len(_PORTS))
    flags = [f"--{name}={port}" for name, port in zip(_PORTS, ports, strict=True)]
    flags += ["--node-ip-address=127.0.0.1", "--num-cpus=4", "--include-dashboard=false"]
    flags += ["--object-store-memory=100000000", f"--temp-dir={folder}", "--head", "--block"]
    environment = {
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    }
    command = [sys.executable, str(Path(__file__).with_name("ray_start.py")), "start", *flags]
    with running(command, folder / "head.log", environment) as is_up:
        is_up("Ray runtime started")
        yield f"127.0.0.1:{ports[0]}"


@contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[Callable[[str], None]]:
    """Run a command; yield what waits until it has said something."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **environment}
        )

    def has_said(words: str) -> bool:
        said = log.read_text(errors="replace")
        assert process.poll() is None, said
        return words in said

    try:
        yield lambda words: wait_until(lambda: has_said(words), words)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)


@contextmanager
def ray_server(folder: Path, models: Path, **arguments: Any) -> Iterator[RayServer]:
    """Run the application of deploy/ray, with other ports, another folder and some arguments."""
    port, http_port = free_ports(2)
    config = yaml.safe_load((REPOSITORY / "deploy/ray/serve.yaml").read_text())
    config["grpc_options"]["port"] = port
    config["http_options"] = {"host": "127.0.0.1", "port": http_port}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    with ray_head(folder) as cluster:
        server = RayServer(
            f"127.0.0.1:{port}", f"127.0.0.1:{http_port}", cluster, models, config=path
        )
        server.deploy(models=str(models), **arguments)
        ray.init(cluster, log_to_driver=False, configure_logging=False)
        try:
            wait_until(lambda: server.replicas() > 0, "no replica runs")
            yield server
        finally:
            serve.shutdown()  # or the cluster would wait for its replicas
            ray.shutdown()
