import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# The root folder of each part, and the parts that it may import.
ALLOWED = {
    "client": {"datasets", "model", "v1"},
    "datasets": set[str](),
    "model": set[str](),
    "oip": set[str](),
    "playground": {"client", "datasets", "model"},
    "server": {"model", "oip", "v1"},
    "trainer": {"datasets", "model"},
    "v1": set[str](),
}
ROOTS = {part: "proto" if part in {"oip", "v1"} else part for part in ALLOWED}
# Only these know what an MNIST image is like; all others ask the data set.
KNOW_THE_IMAGE_SIZE = {
    "client/mlpserve/client/photographs.py",
    "datasets/mlpserve/datasets/drawn.py",
    "datasets/mlpserve/datasets/mnist.py",
}
IMAGE_SIZES = {28, 784}

# The rooms of the server, and the rooms that each may import; `__main__` may import them all.
SERVER_ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "healthcheck": set(),
    "settings": {"errors"},
    "system": {"errors"},
    "telemetry": {"errors", "settings", "system"},
    "statuses": {"errors", "telemetry"},
    "inference": {"errors", "telemetry"},
    "security": {"errors", "inference", "settings"},
    "models": {"errors", "inference", "settings", "system", "telemetry"},
}
SERVER_ALLOWED["grpc_api"] = set(SERVER_ALLOWED) - {"healthcheck", "models"}
SERVER_ALLOWED["oip"] = SERVER_ALLOWED["grpc_api"] | {"grpc_api"}
SERVER_ALLOWED["app"] = SERVER_ALLOWED["oip"] | {"models", "oip"}
SERVER_ALLOWED["server"] = SERVER_ALLOWED["app"] | {"app"}
SERVER_ALLOWED["workers"] = SERVER_ALLOWED["models"] | {"models", "server"}
SERVER_ALLOWED["ray_serve"] = SERVER_ALLOWED["app"] | {"app"}
SERVER_ALLOWED["__main__"] = set(SERVER_ALLOWED)

every_part = pytest.mark.parametrize("part", list(ALLOWED))


def folder_of(part: str) -> Path:
    return REPOSITORY / ROOTS[part] / "mlpserve" / part


def sources(part: str) -> list[Path]:
    return sorted(folder_of(part).rglob("*.py"))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of all that is imported, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import of more than its own package would evade this test.
            assert node.level <= 1, f"line {node.lineno}: import from the full name"
            if node.level == 0:
                yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_parts(source: str) -> set[str]:
    modules = imported_modules(ast.parse(source))
    return {name.split(".")[1] for name in modules if name.startswith("mlpserve.")}


def imported_rooms(source: str) -> set[str]:
    """Return the rooms of the server that a module of it imports."""
    modules = imported_modules(ast.parse(source))
    return {name.split(".")[2] for name in modules if name.startswith("mlpserve.server.")}


def image_sizes(source: str) -> list[int]:
    """Return the lines on which a number is an image size of MNIST."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and type(node.value) in (int, float)
        and node.value in IMAGE_SIZES
    ]


@every_part
def test_part_is_importable(part: str) -> None:
    importlib.import_module(f"mlpserve.{part}")


@every_part
def test_part_is_typed(part: str) -> None:
    assert (folder_of(part) / "py.typed").is_file()


def test_no_part_claims_the_namespace() -> None:
    # One stray __init__.py there would hide all the other parts.
    assert list(REPOSITORY.glob("*/mlpserve/__init__.py")) == []


def test_each_root_holds_its_parts_and_all_are_packaged() -> None:
    # The build leaves out, without a word, a folder whose name is misspelt.
    folders = {path.name: path.parts[-3] for path in REPOSITORY.glob("*/mlpserve/[!_]*/")}
    assert folders == ROOTS
    found = set(ROOTS.values())
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert sorted(build["dev-mode-dirs"]) == sorted(found)
    assert sorted(build["targets"]["wheel"]["packages"]) == [
        f"{root}/mlpserve" for root in sorted(found)
    ]


@every_part
def test_part_imports_only_what_it_may(part: str) -> None:
    assert sources(part)
    for path in sources(part):
        beyond = imported_parts(path.read_text()) - ALLOWED[part] - {part}
        assert not beyond, f"{path}: imports {beyond}"


def test_library_of_the_client_needs_the_wire_contract_only() -> None:
    program = [folder_of("client") / "predict", folder_of("client") / "__main__.py"]
    library = [
        path for path in sources("client") if not any(path.is_relative_to(part) for part in program)
    ]
    assert library
    for path in library:
        source = path.read_text()
        assert imported_parts(source) <= {"client", "v1"}, path
        assert not any(
            f"{name}.".startswith("mlpserve.client.predict.")
            for name in imported_modules(ast.parse(source))
        ), path


@pytest.mark.parametrize(
    "source",
    [
        "import mlpserve.server",
        "import mlpserve.server.grpc_api.predict as s",
        "from mlpserve.server.grpc_api import services",
        "from mlpserve.server.grpc_api.services import Service",
        "from mlpserve import server",
        "def f():\n    from mlpserve import server",
    ],
)
def test_each_way_to_import_a_part_is_seen(source: str) -> None:
    assert imported_parts(source) == {"server"}


@pytest.mark.parametrize("room", list(SERVER_ALLOWED))
def test_room_of_the_server_imports_only_what_it_may(room: str) -> None:
    folder = folder_of("server") / room
    modules = sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]
    for path in modules:
        beyond = imported_rooms(path.read_text()) - SERVER_ALLOWED[room] - {room}
        assert not beyond, f"{path}: imports {beyond}"


def test_each_room_of_the_server_has_its_arrows() -> None:
    found = folder_of("server").glob("*")
    rooms = {path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(SERVER_ALLOWED)


@every_part
def test_nobody_else_knows_the_image_size(part: str) -> None:
    for path in sources(part):
        name = path.relative_to(REPOSITORY).as_posix()
        if name in KNOW_THE_IMAGE_SIZE or "_pb2" in path.name:  # the generator's offsets
            continue
        assert image_sizes(path.read_text()) == [], name


def test_image_size_is_seen_but_not_in_text() -> None:
    assert image_sizes("A = 28\n\nB = (784, '28')\nC = '784'  # 28\n") == [1, 3]
