"""Cluster of one machine for pods that Docker runs: a network and volumes.

Volumes have the owners and rights that Kubernetes gives them, and Secrets its layout.
"""

import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from manifests import Document, quantity

PREFIX: Final = "mlpserve-kubernetes"
# A Secret as a node lays it out: a renewed one is a new folder, and one link that is replaced.
_LAY_OUT: Final = """if True:
    import io, os, sys, tarfile, uuid
    folder = "..data_" + uuid.uuid4().hex
    os.makedirs("/v/" + folder)
    with tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())) as archive:
        archive.extractall("/v/" + folder, filter="data")
    for name in os.listdir("/v/" + folder):
        os.chown(f"/v/{folder}/{name}", 0, 10001)
        os.chmod(f"/v/{folder}/{name}", 0o440)
        if not os.path.islink("/v/" + name):
            os.symlink("..data/" + name, "/v/" + name)
    os.symlink(folder, "/v/..new")
    os.rename("/v/..new", "/v/..data")
"""


class LabError(Exception):
    """Something did not go as the manifests say."""


def docker(*words: str, timeout_s: float = 300, data: bytes | None = None) -> str:
    """Run docker, and return what it prints.

    Raises:
        LabError: It failed.
    """
    done = subprocess.run(
        ["docker", *words],  # noqa: S607 - whichever is found
        input=data,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        shown = " ".join(words)
        raise LabError(f"docker {shown}: {done.stderr.decode(errors='replace')[-2000:]}")
    printed = done.stdout + done.stderr if words[0] == "logs" else done.stdout
    return printed.decode(errors="replace").strip()


@dataclass
class Cluster:
    """What pods share: a network, and volumes by the names of their claims and Secrets.

    Attributes:
        helper_image: Some image with Python, for what has to be done as root.
        sources: What ConfigMaps and Secrets hold, for variables.
    """

    helper_image: str
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    _volumes: set[str] = field(default_factory=set)
    _containers: list[str] = field(default_factory=list)

    def gateway(self) -> str:
        """Return the address of this machine in the network."""
        return docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", PREFIX)

    def claim(self, name: str, group: int) -> str:
        """Return the volume of a claim: the root's, and writable for the group (`fsGroup`)."""
        volume = f"{PREFIX}-{name}"
        if volume not in self._volumes:
            docker("volume", "create", volume)
            self._volumes.add(volume)
            self.as_root(volume, f"import os; os.chown('/v', 0, {group}); os.chmod('/v', 0o2775)")
        return volume

    def empty_folder(self, name: str, source: Document, group: int) -> str:
        """Return a new volume for an `emptyDir`, in memory here, with its limit."""
        megabytes = round(quantity(source.get("sizeLimit", "64Mi")) / 2**20)
        volume = f"{PREFIX}-{name}"
        options = f"size={megabytes}m,gid={group},mode=2777"
        memory = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o={options}")
        docker("volume", "create", *memory, volume)
        self._volumes.add(volume)
        return volume

    def as_root(self, volume: str, program: str, data: bytes | None = None) -> str:
        """Run Python as root, with a volume at /v."""
        words = ("--user", "0", "--volume", f"{volume}:/v", "--entrypoint", "python")
        return docker("run", "--rm", "-i", *words, self.helper_image, "-c", program, data=data)

    def fill(self, name: str, contents: Mapping[str, bytes], group: int) -> None:
        """Make the volume of a Secret, or renew what is in it, as a node does."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for file, content in contents.items():
                entry = tarfile.TarInfo(file)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        self.as_root(self.claim(name, group), _LAY_OUT, archive.getvalue())

    def start(self, *words: str) -> str:
        """Start a container in the background; return its id."""
        identifier = docker("run", "--detach", "--label", PREFIX, *words)
        self._containers.append(identifier)
        return identifier

    def remove_all(self) -> None:
        """Remove what was made."""
        if self._containers:
            docker("rm", "--force", "--volumes", *reversed(self._containers))
        for volume in self._volumes:
            docker("volume", "rm", "--force", volume)


@contextmanager
def cluster(helper_image: str) -> Iterator[Cluster]:
    """Make a cluster, and remove all of it afterwards."""
    if docker("network", "ls", "--quiet", "--filter", f"name=^{PREFIX}$"):
        raise LabError(
            f"there is a network {PREFIX} already: another run is under way, or one was killed; "
            f"then docker rm --force $(docker ps -aq --filter label={PREFIX}); "
            f"docker network rm {PREFIX}; "
            f"docker volume rm $(docker volume ls -q --filter name={PREFIX})"
        )
    docker("network", "create", PREFIX)
    made = Cluster(helper_image)
    try:
        yield made
    finally:
        made.remove_all()
        docker("network", "rm", PREFIX)
