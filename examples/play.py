"""All of it in one go, to play with: train a network, serve it, and open the page to draw on.

Run by `make play`; Ctrl-C ends it. Each program is a process of its own, as in production.
"""

import contextlib
import subprocess
import sys

from demo import MODEL_NAME, MODELS, STOP_TIMEOUT_S, running_server, step

PORT = "8080"


def main() -> int:
    """Run the programs until Ctrl-C; return the exit code."""
    step(f"1. Train a network, unless {MODELS}/ has one")
    train = [sys.executable, "-m", "mlpserve.trainer", "--models", str(MODELS)]
    trained = subprocess.run([*train, "--name", MODEL_NAME, "--unless-published"], check=False)
    if trained.returncode:
        return trained.returncode
    step("2. Start the server on a free port")
    with running_server() as target:
        step("3. Start the playground; open the address below, and end all with Ctrl-C")
        play = [sys.executable, "-m", "mlpserve.playground", "--target", target]
        with subprocess.Popen([*play, "--models", str(MODELS), "--port", PORT]) as playground:
            with contextlib.suppress(KeyboardInterrupt):
                return playground.wait()
            return playground.wait(timeout=STOP_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
