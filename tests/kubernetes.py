"""Runs the pods of deploy/kubernetes in Docker, as Kubernetes would, and checks what they do.

    make kubernetes

Commands, variables, users, limits, volumes, probes and grace periods are taken from the rendered
manifests. Needs Docker and kubectl, but no cluster. With MLPSERVE_MNIST set to the folder with the
four official files the trainer has these; otherwise it may download them, or draws digits.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import trustme

import manifests
from manifests import REPOSITORY, Pod
from pod_cluster import PREFIX, Cluster, LabError, cluster, docker
from pod_containers import RunningPod

GROUP: Final = 10001
MAX_IMAGE_MB: Final = 210
TIMEOUT_S: Final = 60.0
LOAD: Final = REPOSITORY / "tests" / "support" / "container_load.py"
SERVICES: Final = ("mlpserve", "mlpserve-headless")


def main() -> None:
    """Run all checks."""
    began_s = time.monotonic()
    pods = {
        folder: list(manifests.pods(manifests.rendered(folder))) for folder in manifests.FOLDERS
    }
    _step("build the images")
    images = {each["image"] for found in pods.values() for pod in found for each in pod.containers}
    _build(images)
    (base,), (production,), (kserve,) = (
        pods[each] for each in ("base", "overlays/production", "kserve")
    )
    with cluster(base.containers[0]["image"]) as made:
        _check_base(made, base, pods["trainer"][0])
        _check_production(made, production)
        _check_kserve(made, kserve)
    print(f"\nkubernetes: all checks passed, in {time.monotonic() - began_s:.0f} s")


def _step(text: str) -> None:
    print(f"\n--- {text}", flush=True)


def _build(images: set[str]) -> None:
    for image in sorted(images | {"mlpserve-client"}):
        part = image.partition(":")[0].removeprefix("mlpserve-").replace("models", "model")
        file = REPOSITORY / part / "Dockerfile"
        docker("build", "--quiet", "-f", str(file), "-t", image, str(REPOSITORY), timeout_s=600)
        size_mb = int(docker("image", "inspect", "-f", "{{.Size}}", image)) / 1e6
        print(f"{image}: {size_mb:.0f} MB")
        _expect(size_mb <= MAX_IMAGE_MB, f"{image} is larger than {MAX_IMAGE_MB} MB")


def _expect(is_so: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not is_so:
        raise LabError(otherwise)


def _wait_for(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        _expect(time.monotonic() < deadline_s, f"waited in vain for: {what}")
        time.sleep(0.1)


def _check_base(made: Cluster, server: Pod, trainer: Pod) -> None:
    _step("a server without a model is alive and not ready")
    first = RunningPod(made, server, "server-1", SERVICES)
    print(f"started after {first.wait_for('startup'):.1f} s")
    _expect(first.probe("liveness") is None, "it is not alive")
    _expect(first.probe("readiness") is not None, "it is ready without a model")

    _step("the trainer is stopped, ends with 75, and the next pod goes on")
    _give_data(made)
    stopped = RunningPod(made, trainer, "trainer-1")
    _wait_for(lambda: '"event": "epoch"' in stopped.logs("trainer"), "the first epoch")
    code, seconds = stopped.stop()["trainer"]
    print(f"ended with {code} after {seconds:.1f} s")
    _expect(code == 75, f"it ended with {code}:\n{stopped.logs('trainer')}")
    resumed = RunningPod(made, trainer, "trainer-2")
    code = resumed.wait_for_end("trainer")
    logs = resumed.logs("trainer")
    _expect(code == 0 and '"event": "resumed"' in logs, f"it ended with {code}:\n{logs}")
    print(logs.strip().splitlines()[-1][:200])

    _step("two servers are ready, and clients reach both by the headless name")
    second = RunningPod(made, server, "server-2", SERVICES)
    second.wait_for("startup")
    for pod in (first, second):
        pod.wait_for("readiness")
    print(_predict("--target=mlpserve-headless:50051", "--model=digits", "--data=drawn"))
    for pod in (first, second):
        page = _metrics(pod)
        print({name: page[name] for name in ("mlpserve_workers", "mlpserve_queue_rows")})
        _expect(page["mlpserve_workers"] == 2, "there are not two workers")
        _expect(page["mlpserve_batch_rows_sum"] > 0, "a server had no part in it")

    _step("a server ends under load: no call of clients that retry fails")
    with _load() as figures:
        ended = second.stop()
    print(*figures, sep="\n")
    _check_end(ended)

    _step("the largest requests at once stay within the limit of memory")
    _send_large(first)
    print(f"peak: {first.peak_mb('server'):.0f} MB")
    _expect(first.state("server")["OOMKilled"] is False, "it was killed")
    _expect(first.probe("readiness") is None, "it is not ready any more")
    _check_end(first.stop())


def _check_end(ended: dict[str, tuple[int, float]]) -> None:
    for name, (code, seconds) in ended.items():
        print(f"{name} ended with {code} after {seconds:.1f} s")
        _expect(code == 0, f"{name} ended with {code}")


def _give_data(made: Cluster) -> None:
    folder = os.environ.get("MLPSERVE_MNIST")
    if not folder:
        return
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in Path(folder).glob("*.gz"):
            tar.add(path, f"mnist/{path.name}")
    program = (
        "import io, sys, tarfile, os; os.setgid(10001); os.umask(2); os.makedirs('/v/mnist');"
        "tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())).extractall('/v', filter='data')"
    )
    made.as_root(made.claim("mlpserve-trainer", GROUP), program, archive.getvalue())


def _predict(*flags: str, mounts: tuple[str, ...] = ()) -> str:
    words = [word for mount in mounts for word in ("--volume", mount)]
    command = ["docker", "run", "--rm", "--network", PREFIX, "--read-only", "--tmpfs=/tmp", *words]
    done = subprocess.run(
        [*command, "mlpserve-client", *flags], capture_output=True, text=True, check=False
    )
    _expect(done.returncode == 0, f"a client failed: {done.stdout}{done.stderr}")
    return done.stdout.strip().splitlines()[0]


def _metrics(pod: RunningPod) -> dict[str, float]:
    """Return the sums of all metrics, by their names."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(f"http://{pod.address}:9464/metrics", timeout=10) as page:
        for line in page.read().decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
    return found


@contextmanager
def _load() -> Iterator[list[str]]:
    """Have clients call while the block runs; what becomes of their calls is added to the list."""
    figures: list[str] = []
    words = ("--network", PREFIX, "--volume", f"{LOAD}:/load.py:ro", "--entrypoint", "python")
    load = docker("run", "--detach", *words, "mlpserve-client", "/load.py", f"{SERVICES[1]}:50051")
    try:
        _wait_for(lambda: "under load" in docker("logs", load), "the load")
        yield figures
        docker("stop", "--time", "60", load)
        figures += docker("logs", load).splitlines()[1:]
        (retrying,) = [line for line in figures if line.startswith("clients that retry")]
        _expect(" 0 failed, 0 wrong" in retrying, retrying)
    finally:
        docker("rm", "--force", load)


def _send_large(pod: RunningPod) -> None:
    """Send the largest batches there are, as floats, several at once, from within the network."""
    program = f"""if True:
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from mlpserve.client import Client
        images = np.zeros((8192, 28, 28), np.float32)
        with Client("{pod.address}:50051", timeout_s=60) as client, ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: client.predict(images), range(32))
            print(sum(len(each.labels) for each in answers))
    """
    words = ("run", "--rm", "--network", PREFIX, "--entrypoint", "python", "mlpserve-client")
    answered = docker(*words, "-c", program)
    print(f"{answered} images were answered")
    _expect(answered == str(32 * 8192), "some were not")


def _check_production(made: Cluster, pod: Pod) -> None:
    _step("all components: models from a store by the sidecar, TLS, probes by command")
    authority = trustme.CA()
    _put_certificate(made, authority)
    with _store(made) as store:
        documents = manifests.rendered("overlays/production")
        for name, variables in manifests.config_maps(documents).items():
            made.sources[name] = variables
        made.sources["mlpserve-store"] = store
        running = RunningPod(made, pod, "production", SERVICES)
        print(f"started after {running.wait_for('startup'):.1f} s")
        print(f"ready after {running.wait_for('readiness'):.1f} s more")
        _expect(running.probe("liveness") is None, "it is not alive")
        mount = _authority_file(made, authority)
        flags = ("--target=mlpserve:50051", "--tls-ca=/ca/ca.pem", "--data=drawn")
        print(_predict(*flags, mounts=(mount,)))
        print(f"the sidecar: {running.peak_mb('sync'):.0f} MB")

        _step("a renewed certificate is taken over in service, for probes too")
        _put_certificate(made, authority)
        running.wait_for("readiness")
        _expect("taken over: /tls/tls.crt" in running.logs("server"), "it was not taken over")
        print(_predict(*flags, mounts=(mount,)))
        _check_end(running.stop())


def _put_certificate(made: Cluster, authority: trustme.CA) -> None:
    issued = authority.issue_cert("mlpserve", "mlpserve.mlpserve.svc")
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    contents = {"tls.crt": chain, "tls.key": issued.private_key_pem.bytes()}
    made.fill("mlpserve-tls", contents, GROUP)


def _authority_file(made: Cluster, authority: trustme.CA) -> str:
    made.fill("authority", {"ca.pem": authority.cert_pem.bytes()}, GROUP)
    return f"{PREFIX}-authority:/ca:ro"


@contextmanager
def _store(made: Cluster) -> Iterator[dict[str, str]]:
    """Run an S3 on this machine with the trained model; yield the variables that name it."""
    address = made.gateway()
    command = [sys.executable, "-m", "moto.server", "-H", address, "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            port = next(line for line in server.stderr if "Running on http" in line)
            url = port.split("Running on ")[1].split()[0].rstrip("/")
            variables = {
                "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": "geheim",
                "AWS_DEFAULT_REGION": "us-east-1",
                "FSSPEC_S3_ENDPOINT_URL": url,
            }
            _upload(made, variables)
            yield variables
        finally:
            server.terminate()


def _upload(made: Cluster, variables: dict[str, str]) -> None:
    program = (
        "import fsspec; s3 = fsspec.filesystem('s3'); s3.mkdir('bucket');"
        "s3.put('/models/', 'bucket/models/', recursive=True)"
    )
    words = [f"--env={name}={value}" for name, value in variables.items()]
    volume = made.claim("mlpserve-models", GROUP)
    docker(
        *("run", "--rm", "--network", PREFIX, *words, "--volume", f"{volume}:/models:ro"),
        *("--entrypoint", "python", _models_image(), "-c", program),
    )


def _models_image() -> str:
    (pod,) = manifests.pods(manifests.rendered("overlays/store"))
    return str(pod.containers[0]["image"])


def _check_kserve(made: Cluster, pod: Pod) -> None:
    _step("KServe's runtime: the Open Inference Protocol over HTTP and gRPC, models at /mnt/models")
    (container,) = pod.spec["containers"]
    mount = {"name": "storage", "mountPath": "/mnt/models", "readOnly": True}
    container["volumeMounts"].append(mount)  # as KServe does
    claim = {"claimName": "mlpserve-models"}
    pod.spec["volumes"].append({"name": "storage", "persistentVolumeClaim": claim})
    running = RunningPod(made, pod, "kserve", ("kserve",))
    print(f"started after {running.wait_for('startup'):.1f} s")
    running.wait_for("readiness")
    _expect(running.probe("liveness") is None, "it is not alive")
    image = np.zeros((1, 28, 28), np.uint8)
    given = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": image.tolist()}
    request = urllib.request.Request(
        f"http://{running.address}:8080/v2/models/digits/infer",
        data=json.dumps({"inputs": [given]}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - ours
        answer = json.load(response)
    print(answer["model_name"], [each["name"] for each in answer["outputs"]])
    print(_predict("--target=kserve:9000", "--data=drawn"))
    _check_end(running.stop())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("kubernetes: terminated"))  # cleans up
    try:
        main()
    except LabError as error:
        sys.exit(f"kubernetes: {error}")
