"""Training while you watch: one run of ``mlpserve-train`` at a time, which all pages see alike.

    page -- settings, stop, resume, publish --> Training -- flags, SIGTERM --> mlpserve-train
         <-- its state, as server-sent events --        <-- JSON lines of progress --

What is published the trainer publishes, by going on from its checkpoint. Each page is told the
state as it is: whoever comes late, or again, has missed nothing.
"""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException

from mlpserve.model.errors import ModelError
from mlpserve.model.folder import versions
from mlpserve.playground.run_folder import RunFolder
from mlpserve.playground.trainer_process import DRAWN

MODEL: Final = "playground"  # never one that others ask for
MAX_VERSIONS: Final = 100
_MAX_LINE_BYTES: Final = 1 << 20
_MAX_WARNINGS: Final = 10
_TIME_LIMIT_S: Final = 600
_WALL_LIMIT_S: Final = 1200  # with all that is not training
_STOP_LIMIT_S: Final = 10
_KEPT_S: Final = 3600
_HEARTBEAT_S: Final = 1
_FLAGS: Final = (
    *("--name", MODEL, "--validation-share", "0.1", "--threads", "1", "--checkpoint-every", "5"),
    *("--log-format", "json", "--progress-every", "0.2"),
)
_STOPPED: Final = 75  # the exit code of a trainer that can go on


class Training:
    """The run that pages start, watch, stop and publish.

    Args:
        models: Where versions are published; None where that folder is not at hand.
        data_dir: Where the MNIST files may be.
        is_allowed: Whether pages may start anything.
    """

    def __init__(self, models: Path | None, data_dir: Path | None, *, is_allowed: bool) -> None:
        self.is_allowed = is_allowed
        self.is_ending: Callable[[], bool] = lambda: False
        self._models = models
        self._data_dir = data_dir
        self._folder = RunFolder()
        self._is_receiving = False
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._points: list[tuple[float, ...]] = []
        self._revision = 0  # another where points were removed
        self._state: dict[str, Any] = {"run": 0, "phase": "idle", "message": "", "warnings": []}

    @property
    def is_busy(self) -> bool:
        """Return whether a trainer is at work."""
        return self._task is not None and not self._task.done()

    def start(self, settings: Mapping[str, str]) -> None:
        """Begin a new run; what is left of the one before is forgotten."""
        self._check_free()
        if settings["data"] == "own" and self._folder.file is None:
            raise HTTPException(422, "data: expected a file of your own first")
        self._folder.forget_run()
        if settings["data"] != "own":
            self._folder.forget_file()
        self._keep_points(-1)
        self._state = {"run": self._state["run"] + 1, "settings": settings, "warnings": []}
        self._begin("running", "--no-publish", "--time-limit", str(_TIME_LIMIT_S))

    def resume(self) -> None:
        """Go on with a run that was stopped."""
        self._check_checkpoint()
        flags = ("--no-publish", "--resume", "--time-limit", str(_TIME_LIMIT_S))
        self._begin("running", *flags)

    def publish(self) -> None:
        """Have the trainer publish what it learned so far."""
        self._check_checkpoint()
        if self._models is None:
            raise HTTPException(409, "publish: the playground was started without --models")
        try:
            if len(versions(self._models, MODEL)) >= MAX_VERSIONS:
                raise HTTPException(
                    409, f"publish: {MODEL!r} has {MAX_VERSIONS} versions; prune some first"
                )
        except ModelError as error:
            raise HTTPException(409, f"publish: {error}") from error
        self._begin("publishing", "--resume", "--time-limit", "0.001")

    async def stop(self) -> None:
        """End the trainer, which saves what it learned, within ten seconds."""
        if not self.is_busy:
            return
        self._set(phase="stopping")
        task, child = self._task, self._child
        assert task is not None  # noqa: S101 - it is busy
        if child is not None and child.returncode is None:
            child.terminate()
        if not (await asyncio.wait([task], timeout=_STOP_LIMIT_S))[0] and child is not None:
            child.kill()

    async def close(self) -> None:
        """End all, and remove what was kept."""
        await self.stop()
        if self._task is not None:
            await self._task
        self._expire()

    async def receive(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Keep a visitor's file for the runs that follow; the trainer tells whether it is data."""
        self._check_free()
        self._is_receiving = True
        try:
            await self._folder.receive(name, pieces)
        finally:
            self._is_receiving = False
            self._expire_later()
            self._set()

    async def watch(self) -> AsyncIterator[str]:
        """Yield the state as it is, and again whenever it has changed."""
        sent, revision = 0, -1
        while not self.is_ending():
            changed = self._changed
            sent = sent if revision == self._revision else 0
            revision = self._revision
            yield f"data: {json.dumps(self._described(sent))}\n\n"
            sent = len(self._points)
            while not (changed.is_set() or self.is_ending()):
                try:
                    await asyncio.wait_for(changed.wait(), _HEARTBEAT_S)
                except TimeoutError:
                    yield ":\n\n"

    def _described(self, sent: int) -> dict[str, Any]:
        return {
            **self._state,
            "isAllowed": self.is_allowed,
            "isBusy": self.is_busy,
            "canPublish": self._has_checkpoint() and self._models is not None,
            "canResume": self._has_checkpoint() and self._state["phase"] != "finished",
            "file": self._folder.file and self._folder.file.name,
            "from": sent,
            "points": self._points[sent:],
        }

    def _set(self, **changes: object) -> None:
        self._state.update(changes)
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_free(self) -> None:
        if self.is_busy or self._is_receiving:
            raise HTTPException(409, "training: one is under way; stop it first")

    def _has_checkpoint(self) -> bool:
        return not self.is_busy and self._folder.has_checkpoint

    def _check_checkpoint(self) -> None:
        self._check_free()
        if not self._has_checkpoint():
            raise HTTPException(409, "training: there is none to go on with; start one")

    def _expire_later(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(_KEPT_S, self._expire)

    def _begin(self, phase: str, *flags: str) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._task = asyncio.create_task(self._run(phase, flags))
        self._set(phase=phase, message="", version=None)

    async def _run(self, phase: str, flags: tuple[str, ...]) -> None:
        """Run a trainer to its end, and tell how it ended."""
        complaint = ""
        try:
            async with asyncio.timeout(_WALL_LIMIT_S):
                child = await self._started(flags)
                try:
                    _, complaint = await asyncio.gather(self._follow(child), _last_line(child))
                    code = await child.wait()
                finally:
                    if child.returncode is None:
                        child.kill()
        except TimeoutError:
            code, complaint = 1, f"it took longer than {_WALL_LIMIT_S} seconds"
        except OSError as error:
            code, complaint = 1, f"it cannot be started: {error.strerror}"
        except (LookupError, TypeError, ValueError) as error:
            code, complaint = 1, f"it said what is not understood: {error}"
        self._child, self._task = None, None
        self._ended(phase, code, complaint.removeprefix("mlpserve-train: "))
        self._expire_later()

    async def _started(self, flags: tuple[str, ...]) -> asyncio.subprocess.Process:
        folder = self._folder.make()
        own = {"drawn": folder / DRAWN, "own": self._folder.file}
        settings = {**self._state["settings"]}
        settings["data"] = str(own.get(settings["data"], settings["data"]))
        places = {"models": self._models or folder, "checkpoint": folder / "run"}
        if self._data_dir is not None:
            places["data-dir"] = self._data_dir
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mlpserve.playground.trainer_process", str(folder)),
            *(f"--{name}={value}" for name, value in (settings | places).items()),
            *_FLAGS,
            *flags,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the playground, which then stops it
        )
        if self._state["phase"] == "stopping":
            self._child.terminate()
        return self._child

    async def _follow(self, child: asyncio.subprocess.Process) -> None:
        """Take what the trainer tells, line by line."""
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        async for line in child.stdout:
            told = json.loads(line)
            if told["event"] == "begin":
                self._keep_points(told["recipe"]["epochs"] * told["steps_done"] / told["steps"])
            elif told["event"] == "progress":
                losses = ("epochs", "train_loss", "train_accuracy")
                judged = ("validation_loss", "validation_accuracy")
                self._points.append(tuple(told[name] for name in (*losses, *judged)))
                self._set(network={name: told[name] for name in ("confusions", "first_layer")})
            elif told["event"] == "warning":
                self._set(warnings=[*self._state["warnings"], told["text"]][-_MAX_WARNINGS:])
            elif told["event"] == "trained":
                self._set(ended=told["ended_because"])
            elif told["event"] == "published":
                self._set(version=told["version"], testAccuracy=told["test_accuracy"])

    def _ended(self, phase: str, code: int, complaint: str) -> None:
        if code == 0:
            self._set(phase="finished" if phase == "running" else "published")
        elif code == _STOPPED or self._state["phase"] == "stopping":
            self._set(phase="stopped")
        else:
            if code < 0:
                complaint = f"the trainer was killed by {signal.Signals(-code).name}"
            phase = "stopped" if self._has_checkpoint() else "failed"
            # The visitor's file has its name; where it is kept is nobody's business.
            complaint = re.sub(rf"{re.escape(str(self._folder.path))}/(own/)?", "", complaint)
            self._set(phase=phase, message=complaint)

    def _keep_points(self, epochs: float) -> None:
        """Forget what was found after so many epochs: it is learned anew."""
        self._points = [point for point in self._points if point[0] <= epochs]
        self._revision += 1

    def _expire(self) -> None:
        """Remove all that is kept of the last run."""
        self._folder.remove()
        self._set()


async def _last_line(child: asyncio.subprocess.Process) -> str:
    assert child.stderr is not None  # noqa: S101 - it is a pipe
    last = b""
    async for line in child.stderr:
        last = line
    return last.decode(errors="replace").strip()
