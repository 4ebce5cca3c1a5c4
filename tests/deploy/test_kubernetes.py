"""Manifests of deploy/kubernetes: valid, restricted, and true of the programs that they run.

tests/kubernetes.py runs their containers.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import manifests
from manifests import FOLDER, FOLDERS, REPOSITORY, Document, Pod
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.settings.sources import read_settings
from mlpserve.server.telemetry.metrics import METRICS
from mlpserve.trainer.arguments import train_parser

SCHEMAS = Path(__file__).parent / "schemas"
PAGE = REPOSITORY / "docs" / "kubernetes.md"
# The oldest that has all that is used, and the newest whose schemas there are.
RELEASES = ("1.29", "1.37")
SERVER = "server"
STOP_MARGIN_S = 5
# Policies at https://kubernetes.io/docs/concepts/security/pod-security-standards: restricted.
ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
OF_THE_HOST = {"hostNetwork", "hostPID", "hostIPC"}

every_folder = pytest.mark.parametrize("folder", FOLDERS)


@pytest.fixture(scope="module", autouse=True)
def kubectl() -> None:
    """Have kubectl, which renders the manifests."""
    if manifests.find_kubectl() is None:
        if os.environ.get("CI"):
            pytest.fail("CI must run this with kubectl")
        pytest.skip("kubectl is not installed")


@cache
def rendered(folder: str) -> list[Document]:
    return manifests.rendered(folder)


def pods_of(folder: str) -> list[Pod]:
    return list(manifests.pods(rendered(folder)))


def server_of(folder: str) -> Document:
    (pod,) = pods_of(folder)
    container: Document = pod.spec["containers"][0]
    return container


def settings_of(container: Document) -> ServerConfig:
    words = iter(each.removeprefix("--").split("=", 1) for each in container["args"])
    options = {name.replace("-", "_"): value for name, value in words}
    return read_settings(ServerConfig, options, manifests.environment(container, {}))[0]


def validate(document: Document, release: str) -> None:
    schema = SCHEMAS / f"{document['kind']}.json"
    if schema.exists():
        jsonschema.validate(document, json.loads(schema.read_text()))
    else:
        kubernetes_validate.validate(document, release, strict=True)


def only(folder: str, kind: str, name: str = "mlpserve") -> Document:
    found = manifests.of_kind(rendered(folder), kind)
    (document,) = [each for each in found if each["metadata"]["name"] == name]
    return document


@every_folder
@pytest.mark.parametrize("release", RELEASES)
def test_each_document_is_valid_by_the_published_schemas(folder: str, release: str) -> None:
    for document in rendered(folder):
        validate(document, release)


@pytest.mark.parametrize(
    ("folder", "kind", "spoil"),
    [
        ("base", "Deployment", {"replica": 2}),
        ("kserve", "ServingRuntime", {"containers": [{"image": "without-a-name"}]}),
        ("kserve", "InferenceService", {"predictor": {"minReplicas": "two"}}),
        ("overlays/monitoring", "PodMonitor", {"podMetricsEndpoints": [{"ports": "metrics"}]}),
    ],
)
def test_the_schemas_find_what_is_wrong(folder: str, kind: str, spoil: Document) -> None:
    (document, *_) = manifests.of_kind(rendered(folder), kind)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(document | {"spec": document["spec"] | spoil}, RELEASES[-1])


@every_folder
def test_each_pod_is_restricted(folder: str) -> None:
    for pod in pods_of(folder):
        assert not OF_THE_HOST & pod.spec.keys()
        assert {key for each in pod.spec["volumes"] for key in each} <= ALLOWED_VOLUMES | {"name"}
        of_pod = pod.spec.get("securityContext", {})
        for container in pod.containers:
            context: dict[str, Any] = of_pod | container["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] == context["runAsGroup"] == 10001
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"].keys() == {"memory"}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@every_folder
def test_each_pod_mounts_what_it_has_and_has_what_it_mounts(folder: str) -> None:
    for pod in pods_of(folder):
        volumes = {each["name"] for each in pod.spec["volumes"]}
        mounts = {each["name"] for it in pod.containers for each in it["volumeMounts"]}
        assert mounts == volumes
        claims = {
            each["persistentVolumeClaim"]["claimName"]
            for each in pod.spec["volumes"]
            if "persistentVolumeClaim" in each
        }
        made = manifests.of_kind(rendered("base") + rendered("trainer"), "PersistentVolumeClaim")
        assert claims <= {each["metadata"]["name"] for each in made}


@every_folder
def test_images_are_those_of_this_release(folder: str) -> None:
    release = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    for pod in pods_of(folder):
        for container in pod.containers:
            name, _, tag = container["image"].partition(":")
            assert tag == release
            part = name.removeprefix("mlpserve-").replace("models", "model")
            assert (REPOSITORY / part / "Dockerfile").exists()


@every_folder
def test_selectors_find_the_pods_that_they_are_for(folder: str) -> None:
    documents = rendered(folder)
    labels = [pod.labels for pod in pods_of(folder)]
    for kind, path in (
        ("Deployment", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("PodMonitor", ("selector", "matchLabels")),
        ("Service", ("selector",)),
    ):
        for document in manifests.of_kind(documents, kind):
            wanted = document["spec"]
            for key in path:
                wanted = wanted[key]
            assert any(wanted.items() <= found.items() for found in labels), document["metadata"]


@pytest.mark.parametrize("folder", [each for each in FOLDERS if each != "trainer"])
def test_settings_are_ones_that_the_server_takes_and_time_to_stop_is_enough(folder: str) -> None:
    (pod,) = pods_of(folder)
    config = settings_of(server_of(folder))
    assert config.host == config.metrics_host == "0.0.0.0"  # noqa: S104 - what others reach
    assert config.workers == manifests.quantity(server_of(folder)["resources"]["requests"]["cpu"])
    grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
    assert grace_s >= config.drain_seconds + config.stop_grace_s + STOP_MARGIN_S


@pytest.mark.parametrize("folder", [each for each in FOLDERS if each != "trainer"])
def test_ports_are_those_that_the_server_listens_on(folder: str) -> None:
    container = server_of(folder)
    config = settings_of(container)
    listens = {config.port, config.metrics_port, config.http_port}
    assert {each["containerPort"] for each in container.get("ports", [])} <= listens
    for probe in (f"{kind}Probe" for kind in ("startup", "liveness", "readiness")):
        for kind in {"grpc", "tcpSocket", "httpGet"} & container[probe].keys():
            assert manifests.port_number(container, container[probe][kind]["port"]) in listens
    for service in manifests.of_kind(rendered(folder), "Service"):
        (port,) = service["spec"]["ports"]
        assert manifests.port_number(container, port["targetPort"]) == config.port == port["port"]
    for monitor in manifests.of_kind(rendered(folder), "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert manifests.port_number(container, endpoint["port"]) == config.metrics_port


def test_nothing_but_the_endpoint_is_open_to_clients_and_metrics_only_to_prometheus() -> None:
    policies = manifests.of_kind(rendered("overlays/production"), "NetworkPolicy")
    ingress = {
        each["metadata"]["name"]: each["spec"]["ingress"]
        for each in policies
        if "ingress" in each["spec"]
    }
    assert {name: rules[0]["ports"] for name, rules in ingress.items()} == {
        "mlpserve": [{"port": "grpc"}],
        "mlpserve-metrics": [{"port": "metrics"}],
    }
    assert all(rule["from"] for rules in ingress.values() for rule in rules)


def test_the_trainers_flags_are_there_and_both_kinds_of_jobs_have_the_same_pods() -> None:
    once, again = pods_of("trainer")
    assert {once.owner, again.owner} == {"Job", "CronJob"}
    assert once.spec == again.spec
    (container,) = once.spec["containers"]
    options = train_parser().parse_args(container["args"])
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert str(Path(options.checkpoint).parent) in mounted
    assert options.resume


def test_the_autoscaler_asks_for_a_metric_that_there_is_and_the_adapter_serves_it() -> None:
    autoscaler = only("overlays/autoscaling", "HorizontalPodAutoscaler")
    cpu, queue = autoscaler["spec"]["metrics"]
    assert cpu["containerResource"]["container"] == SERVER
    name = queue["pods"]["metric"]["name"]
    assert {metric.name: metric.kind for metric in METRICS}[name] == "gauge"
    assert int(queue["pods"]["target"]["averageValue"]) == ServerConfig().max_batch_rows
    adapter = yaml.safe_load(
        (FOLDER / "components/autoscaling/prometheus-adapter.yaml").read_text()
    )
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert "replicas" not in only("overlays/autoscaling", "Deployment")["spec"]


def test_prometheus_understands_the_adapters_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "CI must run this with Prometheus"
        pytest.skip("prometheus is not installed")
    adapter = yaml.safe_load(
        (FOLDER / "components/autoscaling/prometheus-adapter.yaml").read_text()
    )
    (rule,) = adapter["rules"]["custom"]
    query = rule["metricsQuery"]
    for template, text in {
        "<<.Series>>": rule["name"]["as"],
        "<<.LabelMatchers>>": 'namespace="mlpserve",pod=~"a|b"',
        "<<.GroupBy>>": "pod",
    }.items():
        query = query.replace(template, text)
    assert "<<" not in query
    samples = [
        {"series": f'mlpserve_queue_rows{{namespace="mlpserve",pod="{pod}"}}', "values": values}
        for pod, values in (("a", "600 0 1200 600 600"), ("b", "0x4"), ("other", "9x4"))
    ]
    expected = [
        {"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in (("a", 600), ("b", 0))
    ]
    case = {"expr": query, "eval_time": "60s", "exp_samples": expected}
    test = {"interval": "15s", "input_series": samples, "promql_expr_test": [case]}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_components_go_together() -> None:
    (pod,) = pods_of("overlays/production")
    sync, server = pod.containers
    assert sync["restartPolicy"] == "Always"
    assert settings_of(server).tls_certificate == Path("/tls/tls.crt")
    assert "grpc" not in server["livenessProbe"]
    assert server["readinessProbe"]["exec"]["command"][:2] == ["mlpserve-serve", "healthcheck"]
    assert not manifests.of_kind(rendered("overlays/production"), "PersistentVolumeClaim")
    volumes = {each["name"]: each for each in pod.spec["volumes"]}
    assert volumes["models"].keys() == {"name", "emptyDir"}
    (store,) = (
        name for name in manifests.config_maps(rendered("overlays/production")) if "store" in name
    )
    assert [each["configMapRef"]["name"] for each in sync["envFrom"] if "configMapRef" in each] == [
        store
    ]


def built(copy: Path, kustomization: str) -> list[Document]:
    """Return what an overlay comes to in a copy of all."""
    for folder in ("deploy", "monitoring"):
        shutil.copytree(REPOSITORY / folder, copy / folder)
    overlay = copy / "deploy" / "kubernetes" / "overlays" / "ours"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(kustomization)
    return manifests.rendered(str(overlay))


def test_the_store_of_the_sidecar_is_set_in_an_overlay_as_its_page_says(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    documents = built(tmp_path, block)
    urls = [each.get("MODELS_URL") for each in manifests.config_maps(documents).values()]
    assert "s3://our-bucket/models" in urls
    (pod,) = manifests.pods(documents)
    assert {each["image"].rpartition("/")[0] for each in pod.containers} == {"registry.example"}


def test_all_is_in_another_namespace_if_an_overlay_says_so(tmp_path: Path) -> None:
    text = "{namespace: other, resources: [../production]}"
    documents = built(tmp_path, text)
    assert {each["metadata"].get("namespace", "other") for each in documents} == {"other"}
    (namespace,) = manifests.of_kind(documents, "Namespace")
    assert namespace["metadata"]["name"] == "other"
    assert "pod-security.kubernetes.io/enforce" in namespace["metadata"]["labels"]


def test_the_page_names_all_folders_and_no_others() -> None:
    named = set(re.findall(r"deploy/kubernetes/([\w/.-]+)", PAGE.read_text()))
    named.remove("overlays/ours/kustomization.yaml")  # the reader's
    assert {each for each in named if not (FOLDER / each).exists()} == set()
    components = {path.name for path in (FOLDER / "components").iterdir()}
    assert components <= set(re.findall(r"`(\w+)`", PAGE.read_text()))
