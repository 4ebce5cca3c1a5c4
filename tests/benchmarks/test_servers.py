"""The serving benchmark: its requests, how it reads what comes back, and a short run of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BenchmarkError
from servers.load import run_load
from servers.networks import random_model
from servers.participants import PARTICIPANTS
from servers.protocols import HttpForm, Mlpserve, OpenInference, PlainHttp, Protocol
from servers.wire import first_output, infer_request

CHECKOUT = Path(__file__).parents[2]
SCRIPT = CHECKOUT / "benchmarks" / "serving.py"

# In CI, which installs it, its absence is a failure.
HAS_H2LOAD = shutil.which("h2load") is not None or "CI" in os.environ
needs_h2load = pytest.mark.skipif(not HAS_H2LOAD, reason="needs h2load")


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_a_request_of_the_open_inference_protocol_is_what_its_encoding_says() -> None:
    # model_name = 1: "m"; inputs = 5: {name = 1, datatype = 2, shape = 3: [2, 300]};
    # raw_input_contents = 7. The tag of a field of bytes is its number times eight, plus two.
    tensor = b"\x0a\x06images" + b"\x12\x05UINT8" + b"\x1a\x03\x02\xac\x02"
    assert infer_request("m", b"abc", (2, 300)) == (
        b"\x0a\x01m" + b"\x2a" + bytes([len(tensor)]) + tensor + b"\x3a\x03abc"
    )


@given(values=st.binary(min_size=1, max_size=300))
def test_the_first_output_is_found_raw_or_in_its_tensor(values: bytes) -> None:
    def field(number: int, content: bytes) -> bytes:
        low, high = len(content) & 0x7F, len(content) >> 7
        length = bytes([low | 0x80, high]) if high else bytes([low])
        return bytes([number << 3 | 2]) + length + content

    name, version = field(1, b"digits"), field(2, b"1")
    assert first_output(name + version + field(6, values)) == values
    tensor = field(1, b"probabilities") + field(5, field(6, values))
    assert first_output(name + field(5, tensor)) == values


@pytest.mark.parametrize("protocol", [Mlpserve(), OpenInference(), PlainHttp(), HttpForm()])
def test_every_protocol_carries_the_pixels_as_they_are(protocol: Protocol) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 784), np.uint8)
    assert images.tobytes() in protocol.body(protocol.request(images))


def test_a_network_is_the_same_each_time() -> None:
    one, two = (random_model((784, 16, 10)).network for _ in range(2))
    for parameters, others in zip(one.parameters, two.parameters, strict=True):
        np.testing.assert_array_equal(parameters, others)


def test_every_program_that_a_peer_needs_is_there() -> None:
    for participant in PARTICIPANTS.values():
        program = participant.command(Path("models"), 1)[1]
        assert program == "-m" or Path(program).is_file()


@needs_h2load
def test_a_load_that_is_not_answered_is_no_measurement() -> None:
    with pytest.raises(BenchmarkError, match="of 4 requests succeeded|did not finish"):
        run_load("http://127.0.0.1:1/", b"", [], concurrency=1, requests=4, expected_bytes=1)


@needs_h2load
@pytest.mark.exhaustive
def test_it_measures_what_is_installed_and_names_what_is_missing(tmp_path: Path) -> None:
    outputs = tmp_path / "results.md", tmp_path / "results.json"
    flags = (
        "--repeats 1 --seconds 0.05 --networks 784-8-10 --batches 1,3 --concurrencies 1,2x2 "
        "--servers mlpserve-public,echo"
    )
    done = run(*flags.split(), *(f"--output={path}" for path in outputs))
    assert done.returncode == 0, done.stderr
    assert "**784-8-10, 3 image(s) a request.** The forward pass alone: " in done.stdout
    assert done.stdout in outputs[0].read_text()
    report = json.loads(outputs[1].read_text())
    found = {(entry["server"], entry["cell"]["batch"]) for entry in report["cells"]}
    servers = ("mlpserve", "mlpserve-public", "echo")
    assert found == {(server, batch) for server in servers for batch in (1, 3)}
    for entry in report["cells"]:
        (measured,) = entry["rounds"]
        assert 0 < measured["p50_s"] <= measured["p99_s"]
        assert measured["images_per_s"] > 0
    assert all(start["memory_bytes"] > 1e6 for start in report["starts"])


@needs_h2load
@pytest.mark.exhaustive
def test_it_measures_a_server_beside_that_of_another_checkout() -> None:
    flags = f"--repeats 1 --seconds 0.05 --network 784-8-10 --cells 3:2x2 --baseline {CHECKOUT}"
    command = [sys.executable, str(SCRIPT.with_name("serving_before_after.py")), *flags.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "**3 image(s) a request, 2 x 2 at a time.**" in done.stdout
    for title in ("before: 1 worker", "before: as it starts", "1 worker", "echo on the fast lane"):
        assert f"| {title} " in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--networks 784", "expected at least two sizes, as in 784-10, got '784'"),
        ("--servers triton", "expected some of mlpserve, mlpserve-1,"),
        ("--batches 0", "expected a number of at least 1, got '0'"),
        ("--concurrencies 8x0", "expected a number of at least 1, got '0'"),
        ("--output results.txt", "expected a name that ends in .md or .json"),
    ],
)
def test_a_bad_flag_of_the_serving_benchmark_is_refused(flags: str, message: str) -> None:
    if "output" in flags and not HAS_H2LOAD:
        pytest.skip("needs h2load")
    done = run(*flags.split())
    assert done.returncode != 0
    assert done.stdout == ""
    assert message in done.stderr.replace("\n", " ")


@pytest.mark.exhaustive  # runs two servers
def test_abuses_are_done_beside_honest_clients_who_notice_nothing(tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "benchmarks" / "serving_abuse.py"
    flags = ["--minutes", "0.05", "--rest", "0", "--log", str(tmp_path / "log")]
    command = [sys.executable, str(program), *flags, "--only", "ForgedNames", "NoHttp", "Watches"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    clients = re.findall(
        r"^\| (?:our client|HTTP)[^|]*\| ([0-9]+) +\| 0 ", done.stdout, re.MULTILINE
    )
    assert len(clients) == 6
    assert all(int(calls) > 0 for calls in clients)
    assert re.search(r"^\| malformed HTTP .*[1-9][0-9]* 400", done.stdout, re.MULTILINE)
    assert "no model 'X" in (tmp_path / "log").read_text()
