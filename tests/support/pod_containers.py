"""Containers of pods, run by Docker as Kubernetes would run them; all is taken from manifests.

The same user and groups, a read-only root, no capabilities, the limits of memory, volumes with the
rights that Kubernetes gives them, the variables that it injects, no init, one network for all
containers of a pod, and probes that ask as a node does.
"""

import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from manifests import Document, Pod, environment, expanded, port_number, quantity
from pod_cluster import PREFIX, Cluster, LabError, docker

# Of a cluster with the Services `kubernetes` and `mlpserve`, where links are not turned off.
INJECTED: Final = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
    "MLPSERVE_SERVICE_HOST": "10.96.7.7",
    "MLPSERVE_SERVICE_PORT": "50051",
    "MLPSERVE_SERVICE_PORT_GRPC": "50051",
    "MLPSERVE_PORT": "tcp://10.96.7.7:50051",
    "MLPSERVE_PORT_50051_TCP": "tcp://10.96.7.7:50051",
    "MLPSERVE_PORT_50051_TCP_PROTO": "tcp",
    "MLPSERVE_PORT_50051_TCP_PORT": "50051",
    "MLPSERVE_PORT_50051_TCP_ADDR": "10.96.7.7",
}
_PROBE_DEFAULTS: Final = {"timeoutSeconds": 1, "periodSeconds": 10, "failureThreshold": 3}
_PAUSE: Final = ("python", "-c", "import signal; signal.pause()")


class RunningPod:
    """The containers of a pod, started in their order.

    Args:
        cluster: Where it runs.
        pod: What is to run.
        name: Unique.
        services: Names that lead to it.
    """

    def __init__(
        self, cluster: Cluster, pod: Pod, name: str, services: tuple[str, ...] = ()
    ) -> None:
        self._cluster, self._pod, self._name = cluster, pod, name
        security = pod.spec.get("securityContext", {})
        self._group = security.get("fsGroup", 0)
        aliases = [word for service in services for word in ("--network-alias", service)]
        pause = (cluster.helper_image, *_PAUSE[1:])
        self._sandbox = cluster.start(
            *("--network", PREFIX, *aliases, "--entrypoint", _PAUSE[0], "--init"), *pause
        )
        self.address = docker(
            *("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"),
            self._sandbox,
        )
        self._volumes = {each["name"]: self._volume(each) for each in pod.spec["volumes"]}
        self.containers = {each["name"]: self._start(each, security) for each in pod.containers}

    def _volume(self, volume: Document) -> str:
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            return self._cluster.claim(name, self._group)
        if "secret" in volume:
            return f"{PREFIX}-{volume['secret']['secretName']}"  # which was made before
        name = f"{self._name}-{volume['name']}"
        return self._cluster.empty_folder(name, volume["emptyDir"], self._group)

    def _start(self, container: Document, of_pod: Document) -> str:
        context: dict[str, Any] = of_pod | container["securityContext"]
        variables = environment(container, self._cluster.sources)
        words = [f"--network=container:{self._sandbox}", "--cap-drop=ALL"]
        words += [f"--user={context['runAsUser']}:{context['runAsGroup']}"]
        words += [f"--group-add={self._group}"] if self._group else []
        words += ["--read-only"] if context["readOnlyRootFilesystem"] else []
        words += ["--security-opt=no-new-privileges"]
        memory = int(quantity(container["resources"]["limits"]["memory"]))
        words += [f"--memory={memory}", f"--memory-swap={memory}"]
        words += [f"--env={name}={value}" for name, value in (INJECTED | variables).items()]
        for mount in container["volumeMounts"]:
            suffix = ":ro" if mount.get("readOnly") else ""
            words += ["--volume", f"{self._volumes[mount['name']]}:{mount['mountPath']}{suffix}"]
        command = expanded(container.get("command", []), variables)
        words += ["--entrypoint", command[0]] if command else []
        arguments = command[1:] + expanded(container.get("args") or [], variables)
        return self._cluster.start(*words, container["image"], *arguments)

    def probe(self, kind: str) -> str | None:
        """Ask as a node does; return None where the answer is good, else what was wrong."""
        (container,) = self._pod.spec["containers"]
        return _asked(self.address, self.containers[container["name"]], container, kind)

    def wait_for(self, kind: str) -> float:
        """Probe until the answer is good, for as long as a node would; return the seconds.

        Raises:
            LabError: A node would have given up.
        """
        (container,) = self._pod.spec["containers"]
        probe = _PROBE_DEFAULTS | container[f"{kind}Probe"]
        started_s, problem = time.monotonic(), None
        for _ in range(60 if kind == "readiness" else probe["failureThreshold"]):
            problem = self.probe(kind)
            if problem is None:
                return time.monotonic() - started_s
            time.sleep(probe["periodSeconds"])
        raise LabError(f"{self._name}: {kind}: {problem}\n{self.logs(container['name'])}")

    def logs(self, container: str) -> str:
        """Return the last lines of a container."""
        return docker("logs", "--tail", "60", self.containers[container])

    def state(self, container: str) -> Document:
        """Return what Docker knows of a container's state."""
        found: Document = json.loads(
            docker("inspect", "-f", "{{json .State}}", self.containers[container])
        )
        return found

    def wait_for_end(self, container: str) -> int:
        """Wait until a container ends by itself; return its exit code."""
        return int(docker("wait", self.containers[container]))

    def stop(self) -> dict[str, tuple[int, float]]:
        """End the pod: SIGTERM, and SIGKILL after its time; sidecars last.

        Returns:
            The exit code and the seconds of each container.
        """
        grace_s = self._pod.spec.get("terminationGracePeriodSeconds", 30)
        ended = {}
        for name, identifier in reversed(self.containers.items()):
            started_s = time.monotonic()
            docker("stop", "--time", str(grace_s), identifier)
            ended[name] = (int(self.state(name)["ExitCode"]), time.monotonic() - started_s)
        return ended

    def peak_mb(self, container: str) -> float:
        """Return the most memory that a container has had, in MB."""
        program = (
            "import glob; print(open((glob.glob('/sys/fs/cgroup/memory/memory.max_usage_in_bytes')"
            "+ glob.glob('/sys/fs/cgroup/memory.peak'))[0]).read())"
        )
        found = docker("exec", self.containers[container], "python", "-c", program)
        return int(found) / 1e6


def _asked(address: str, identifier: str, container: Document, kind: str) -> str | None:
    probe: Mapping[str, Any] = _PROBE_DEFAULTS | container[f"{kind}Probe"]
    timeout_s: float = probe["timeoutSeconds"]
    if "exec" in probe:
        return _asked_by_command(identifier, probe["exec"]["command"], timeout_s)
    (how,) = probe.keys() & {"grpc", "tcpSocket", "httpGet"}
    port = port_number(container, probe[how]["port"])
    try:
        if how == "grpc":
            return _asked_over_grpc(address, port, probe["grpc"].get("service", ""), timeout_s)
        if how == "httpGet":
            return _asked_over_http(address, port, probe["httpGet"]["path"], timeout_s)
        socket.create_connection((address, port), timeout_s).close()
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    return None


def _asked_by_command(identifier: str, command: list[str], timeout_s: float) -> str | None:
    try:
        docker("exec", identifier, *command, timeout_s=timeout_s)
    except (LabError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None


def _asked_over_grpc(address: str, port: int, service: str, timeout_s: float) -> str | None:
    with grpc.insecure_channel(f"{address}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return str(error.code())
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return None if is_serving else f"status {answer.status}"


def _asked_over_http(address: str, port: int, path: str, timeout_s: float) -> str | None:
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    return None if re.fullmatch("[23]..", str(status)) else f"status {status}"
