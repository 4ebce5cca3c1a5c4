"""The entry points of our commands, while they are imported."""

import signal
import subprocess
import sys

import pytest

TIMEOUT_S = 60.0


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize("program", ["models", "train", "serve", "predict", "playground"])
def test_ctrl_c_while_a_program_is_imported_ends_it_without_a_traceback(program: str) -> None:
    code = f"from mlpserve.model import programs; raise SystemExit(programs.{program}())"
    command = [sys.executable, "-X", "importtime", "-c", code, "--help"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith((" mlpserve.model.command_line\n", " numpy.version\n")):
                break
        process.send_signal(signal.SIGINT)
        later = [line for line in process.stderr if not line.startswith("import time:")]
        assert process.wait(TIMEOUT_S) in {-signal.SIGINT, 128 + signal.SIGINT}
    assert not later
