"""Sync process: runs ``mlpserve-models sync`` for a server, restarts it when it dies, ends it.

So the libraries of object stores, with their memory, threads and credentials, are in no process
that serves; these know a folder only. What the program logs is logged here.
"""

import json
import logging
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import IO, Any, Final

from mlpserve.model.sync.urls import hide_secrets, without_secrets
from mlpserve.server.errors import StartError

logger = logging.getLogger(__name__)

_COMMAND: Final = (sys.executable, "-P", "-m", "mlpserve.model", "sync", "--until-eof")
_FIRST_LOOK_S: Final = 10.0
_MIN_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 16.0
_STOP_TIMEOUT_S: Final = 2.0
_REFUSAL: Final = "mlpserve-models: "
# The arguments of the program, and the settings that they come from.
_SETTINGS: Final = {"URL: ": "models: ", "FOLDER: ": "cache: "}


class SyncProcess:
    """A child process that keeps a folder equal to an object store.

    It ends with the process that started it, however that ends.

    Args:
        url: The models folder in the store. It may hold secrets, and stands on no command line.
        folder: The local folder.
        period_s: Seconds between looks.
        max_version_mb: Larger weights files are not copied.

    Attributes:
        restarts: How often it ended and was started again.
    """

    def __init__(self, url: str, folder: Path, *, period_s: float, max_version_mb: int) -> None:
        self._url = url
        self._command = [*_COMMAND, "--log-format", "json", "--period-s", f"{period_s:g}"]
        self._command += ["--max-version-mb", str(max_version_mb), "-", str(folder)]
        self._process: subprocess.Popen[str] | None = None
        self._starting = Lock()
        self._stopping = Event()
        self._has_looked = Event()  # or was refused
        self._refusal = ""
        self.restarts = 0
        self._pause_s = _MIN_PAUSE_S
        self._thread = Thread(target=self._run, name="sync", daemon=True)

    def start(self, *, timeout_s: float = _FIRST_LOOK_S) -> None:
        """Start, and wait for the first look into the store to end.

        Args:
            timeout_s: Wait for so many seconds at most; the look goes on.

        Raises:
            StartError: The URL or the folder cannot be used.
        """
        self._thread.start()
        self._has_looked.wait(timeout_s)
        if self._refusal:
            self.stop()
            raise StartError(self._refusal)

    def look_soon(self) -> None:
        """Have the next look come at once, or right after the one under way."""
        with self._starting:
            if self._process is not None:
                self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the program, in the midst of a copy too."""
        self._stopping.set()
        with self._starting:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        """Run the program, again and again, until the server stops."""
        while not self._stopping.is_set():
            how_it_ended = self._run_once()
            # Whoever stops all processes of a container or a service tells us too, perhaps last.
            if not self._stopping.wait(self._pause_s):
                self.restarts += 1
                logger.warning(
                    "mlpserve-models sync %s ended (%s); it is started again",
                    *(without_secrets(self._url), how_it_ended),
                )
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)

    def _run_once(self) -> str:
        """Run the program until it ends; return how it ended."""
        try:
            with self._started() as process:
                waiting = Thread(target=self._wait_for_look, args=(process.stdout,), daemon=True)
                waiting.start()
                refusal = self._relay_log(process.stderr)
                waiting.join()
        except (OSError, RuntimeError) as error:  # no more processes or threads are to be had
            return f"it cannot be started: {error}"
        if refusal:
            self._refusal = refusal
            self._has_looked.set()
        code = process.returncode
        return refusal or (signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def _started(self) -> subprocess.Popen[str]:
        with self._starting:
            if self._stopping.is_set():
                raise RuntimeError("the server is stopping")
            # It unblocks none of its own; one that comes before it waits for signals is kept.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="backslashreplace",
                    start_new_session=True,  # a terminal's signals are for us
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            with suppress(OSError):  # it has died already
                _pipe(self._process.stdin).write(f"{self._url}\n")
                _pipe(self._process.stdin).flush()
            return self._process

    def _wait_for_look(self, answers: IO[str]) -> None:
        if answers.readline():
            self._pause_s = _MIN_PAUSE_S
            self._has_looked.set()

    def _relay_log(self, lines: IO[str] | None) -> str:
        """Log what the program logs; return why it refuses to run, or nothing where it does not."""
        refusal = ""
        for line in _pipe(lines):
            said = hide_secrets(line.rstrip("\n"), self._url)
            record = _record(line)
            if record is not None:
                record.msg = hide_secrets(record.msg, self._url)
                _log(record)
            elif said.startswith(_REFUSAL):
                refusal = in_words_of_settings(said.removeprefix(_REFUSAL))
            else:
                logger.warning("mlpserve-models sync: %s", said)
        return refusal


def _record(line: str) -> logging.LogRecord | None:
    """Return the event that the program has logged; None where the line is none."""
    try:
        event: dict[str, Any] = json.loads(line)
        level = event["level"].upper()
        facts = {
            "name": event["logger"],
            "levelno": logging.getLevelNamesMapping()[level],
            "levelname": level,
            "msg": "\n".join([event["message"], *event.get("traceback", "").splitlines()]),
            "process": event["process"],
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return logging.makeLogRecord(facts)


def _log(record: logging.LogRecord) -> None:
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)


def in_words_of_settings(refusal: str) -> str:
    """Return a refusal of the program with the settings named that its arguments come from."""
    for argument, setting in _SETTINGS.items():
        if refusal.startswith(argument):
            return setting + refusal.removeprefix(argument)
    return refusal


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # noqa: S101 - it was asked for
    return pipe
