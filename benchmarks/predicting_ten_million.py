"""``mlpserve-predict`` over ten million images: memory, and a kill halfway that is resumed.

    python benchmarks/predicting_ten_million.py --rows 10000000 --folder /tmp/ten-million

It needs 1 KB of disk an image. Rows are compared with those of a run that nothing stops. What
follows ``--`` goes to the command, such as ``--target localhost:50051``; without, it runs the
network itself.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from mlpserve.datasets.drawn import draw_digits

_CHUNK_ROWS: Final = 50_000
_EVERY_S: Final = 0.5


def make_images(path: Path, rows: int) -> None:
    """Write (rows, 28, 28) uint8 images: drawn digits, in an order of no period."""
    digits = draw_digits(2000, seed=1).images
    rng = np.random.default_rng(2)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *digits.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, _CHUNK_ROWS):
            count = min(_CHUNK_ROWS, rows - start)
            file.write(digits[rng.integers(0, len(digits), count)].tobytes())


def run(command: list[str], stop: Callable[[], bool]) -> tuple[int, list[tuple[float, int]]]:
    """Run a command; return its exit code, and its resident MB after so many seconds.

    Args:
        command: The command.
        stop: Returns whether it is to be killed now.
    """
    began_s = time.monotonic()
    curve = []
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            curve.append((time.monotonic() - began_s, _resident_mb(process.pid)))
            if stop():
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(_EVERY_S)
    return process.returncode, curve


def _resident_mb(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(lines[0].split()[1]) // 1024 if lines else 0


def _told(name: str, curve: list[tuple[float, int]]) -> str:
    step = max(1, len(curve) // 8)
    points = ", ".join(f"{resident}" for _, resident in curve[::step])
    peak = max(resident for _, resident in curve)
    return f"| {name} | {curve[-1][0]:,.0f} s | {peak} MB | {points} |"


def _digest(path: Path) -> tuple[int, str]:
    """Return how many lines a file has, and a digest of it."""
    digest, lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            lines += block.count(b"\n")
    return lines, digest.hexdigest()[:16]


def main() -> int:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("command", nargs="*", metavar="-- FLAG")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not options.command:
        training = [sys.executable, "-m", "mlpserve.trainer", "--data", "drawn", "--name", "digits"]
        subprocess.run(
            [*training, "--models", str(folder / "models")], check=True, stdout=subprocess.DEVNULL
        )
    make_images(folder / "images.npy", options.rows)
    how = options.command or ["--models", str(folder / "models")]
    command = [sys.executable, "-m", "mlpserve.client", str(folder / "images.npy"), *how]
    whole, killed = folder / "whole.csv", folder / "killed.csv"
    state = folder / "killed.csv.partial" / "state.json"
    for path in (whole, killed):
        path.unlink(missing_ok=True)
        shutil.rmtree(f"{path}.partial", ignore_errors=True)

    def is_half_done() -> bool:
        try:
            return bool(json.loads(state.read_bytes())["tally"]["rows"] >= options.rows / 2)
        except OSError:
            return False

    print("| run | duration | most memory | resident MB, at eight times |\n|---|---|---|---|")
    code, curve = run([*command, "--output", str(whole)], lambda: False)
    print(_told("uninterrupted", curve), flush=True)
    killed_code, curve = run([*command, "--output", str(killed)], is_half_done)
    print(_told(f"killed ({killed_code})", curve), flush=True)
    kept = json.loads(state.read_bytes())["tally"]["rows"]
    resumed_code, curve = run([*command, "--output", str(killed), "--resume"], lambda: False)
    print(_told(f"resumed after {kept:,} rows", curve), flush=True)
    expected, found = _digest(whole), _digest(killed)
    print(f"\nuninterrupted: {expected[0] - 1:,} rows, {expected[1]}")
    print(f"resumed: {found[0] - 1:,} rows, {found[1]}")
    is_right = (code, resumed_code) == (0, 0) and killed_code == -signal.SIGKILL
    is_right &= expected == found and expected[0] == options.rows + 1
    print("every row exactly once" if is_right else "WRONG")
    return os.EX_OK if is_right else os.EX_DATAERR


if __name__ == "__main__":
    sys.exit(main())
