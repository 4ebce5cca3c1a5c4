"""Manifests of deploy/kubernetes as Kubernetes gets them, and what their pods come to.

Rendered by `kubectl kustomize`, the same that `kubectl apply -k` runs.
"""

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

REPOSITORY: Final = Path(__file__).parents[2]
FOLDER: Final = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS: Final = sorted(path.name for path in (FOLDER / "overlays").iterdir())
FOLDERS: Final = ("base", "trainer", "kserve", *(f"overlays/{name}" for name in OVERLAYS))
_VARIABLE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_UNITS: Final = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Document = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod that manifests ask for.

    Attributes:
        owner: The kind of what makes it.
        labels: Its labels.
        spec: Its specification.
    """

    owner: str
    labels: Mapping[str, str]
    spec: Document

    @property
    def containers(self) -> list[Document]:
        """Return all of its containers, in the order in which they start."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def find_kubectl() -> str | None:
    """Return the path of kubectl; None where there is none."""
    return shutil.which("kubectl")


def rendered(folder: str) -> list[Document]:
    """Return the documents that `kubectl apply -k deploy/kubernetes/FOLDER` sends.

    Raises:
        RuntimeError: The folder cannot be built.
    """
    done = subprocess.run(
        [find_kubectl() or "kubectl", "kustomize", str(FOLDER / folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{folder}: {done.stderr}")
    return list(yaml.safe_load_all(done.stdout))


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """Return the documents of a kind."""
    return [each for each in documents if each["kind"] == kind]


def pods(documents: list[Document]) -> Iterator[Pod]:
    """Yield the pods of all that makes some. Of KServe's runtime it is the part that is ours."""
    for document in documents:
        kind, spec = document["kind"], document.get("spec", {})
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if kind in {"Deployment", "Job", "CronJob"}:
            template = spec["template"]
            yield Pod(kind, template["metadata"]["labels"], template["spec"])
        elif kind == "ServingRuntime":
            yield Pod(kind, {}, {key: spec[key] for key in ("containers", "volumes")})


def quantity(text: str | int) -> float:
    """Return what a quantity of Kubernetes means: processors, or bytes."""
    found = re.fullmatch(r"([0-9.]+)(|m|[KMG]i)", str(text))
    if found is None:
        raise ValueError(f"expected a quantity such as 500m or 1Gi, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def environment(container: Document, sources: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the variables of a container.

    Args:
        container: As in a manifest.
        sources: What the ConfigMaps and Secrets hold, by their names.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        (reference,) = (source[key] for key in ("configMapRef", "secretRef") if key in source)
        if reference["name"] in sources or not reference.get("optional"):
            found |= sources[reference["name"]]
    for variable in container.get("env", []):
        found[variable["name"]] = (
            variable["value"] if "value" in variable else _of_field(container, variable)
        )
    return found


def _of_field(container: Document, variable: Document) -> str:
    """Return a request or a limit of the container, rounded up as Kubernetes does."""
    resource = variable["valueFrom"]["resourceFieldRef"]["resource"]
    kind, _, name = resource.partition(".")
    return str(-int(-quantity(container["resources"][kind][name]) // 1))


def expanded(words: list[str], variables: Mapping[str, str]) -> list[str]:
    """Return words of a command with `$(NAME)` replaced, as Kubernetes does."""
    return [_VARIABLE.sub(lambda found: variables.get(found[1], found[0]), each) for each in words]


def port_number(container: Document, port: str | int) -> int:
    """Return the number of a port that may be named."""
    named = {each["name"]: each["containerPort"] for each in container.get("ports", [])}
    return port if isinstance(port, int) else int(named[port])


def config_maps(documents: list[Document]) -> dict[str, dict[str, str]]:
    """Return what the ConfigMaps hold, by their names."""
    return {
        each["metadata"]["name"]: copy.deepcopy(each["data"])
        for each in of_kind(documents, "ConfigMap")
    }
