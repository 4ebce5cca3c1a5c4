import inspect
import json
import subprocess
import sys

import grpc
import pytest

import mlpserve.client

DOCUMENTED = [
    "AsyncBatchingClient",
    "AsyncClient",
    "BatchingClient",
    "Client",
    "ClientError",
    "Explanations",
    "HealthStatus",
    "InvalidRequestError",
    "ModelInfo",
    "NotFoundError",
    "Predictions",
    "ServerFaultError",
    "ServerTimings",
    "ShadowInfo",
    "TimeoutExceededError",
    "TopClasses",
    "TrainingInfo",
    "UnauthenticatedError",
    "UnavailableError",
    "VersionInfo",
    "preprocess",
]
ALSO_A = {"InvalidRequestError": ValueError, "TimeoutExceededError": TimeoutError}


def test_the_names_that_are_exported_are_those_that_are_documented() -> None:
    assert mlpserve.client.__all__ == DOCUMENTED
    public = {
        name
        for name, value in vars(mlpserve.client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(DOCUMENTED)


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name.endswith("Error")])
def test_every_exception_can_be_caught_as_a_client_error(name: str) -> None:
    kind = getattr(mlpserve.client, name)
    assert issubclass(kind, mlpserve.client.ClientError)
    assert issubclass(kind, ALSO_A.get(name, Exception))
    assert not issubclass(kind, grpc.RpcError)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_exported_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(mlpserve.client, name))


def test_the_library_needs_numpy_and_grpc_only() -> None:
    code = "import json, sys, mlpserve.client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = json.loads(done.stdout)
    parts = {name.split(".")[1] for name in loaded if name.startswith("mlpserve.")}
    assert parts == {"client", "v1"}
    assert not {"PIL", "platformdirs", "rich", "threadpoolctl"} & set(loaded)
