"""The parent's side: starts the child that owns torch, asks it for one thing at a time, kills it at the deadline."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from wan22core.errors import StageFailedError, StageTimeoutError, Wan22Error, WorkerKilledError, error_classes
from wan22core.records import Progress
from wan22core.settings import child_environment
from wan22core.worker.death import death_of
from wan22core.worker.messages import (
    MESSAGE,
    AnyMessage,
    Failure,
    LogMessage,
    ProgressMessage,
    Request,
    StageResult,
    StartReport,
    Success,
)
from wan22core.worker.processes import kernel_oom_kills, kill_group, spawn

OnProgress = Callable[[Progress], None]
_Heard = tuple[float, AnyMessage | Wan22Error | None]
"""When, and a message; an error from another thread of ours; None when the pipe ended."""
_START_S = 180.0
_HEARTBEAT_OVERDUE_S = 2.0


class ModelWorker:
    """One child process, started when needed and killed at a deadline; a context manager that leaves nothing behind.

    ``log_path`` collects the child's stderr over all its lives. Not for two threads at once, ``interrupt`` excepted.
    """

    def __init__(
        self, log_path: Path, on_progress: OnProgress | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log_path = log_path
        self._on_progress = on_progress
        self._environment = child_environment(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._messages: queue.Queue[_Heard] = queue.Queue()
        self._spawned_at = 0.0
        self._oom_kills: int | None = None
        self.lives = 0
        """How many children were started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the living child."""
        return self._process.pid if self._process is not None else None

    def spawn(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts a child, in place of one that lives; returns before the child is ready.

        ``environment`` is put on top of what there is, for this child and for later ones.
        """
        self.close()
        self._environment.update(environment or {})
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self._oom_kills = kernel_oom_kills()
        self._spawned_at = time.monotonic()
        command = [sys.executable, "-P", "-m", "wan22core.worker.server", str(os.getpid())]
        self._process = spawn(command, self._environment, self._log)
        self.lives += 1
        self._messages = queue.Queue()
        threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), name="worker-reader", daemon=True
        ).start()

    def start(self, arguments: dict[str, Any], deadline_s: float = _START_S) -> tuple[StartReport, float]:
        """Lets a spawned child import what it needs; its report, and the seconds since it was spawned."""
        left_s = max(0.0, self._spawned_at + deadline_s - time.monotonic())
        request = {**arguments, "paths": [path for path in sys.path if path]}
        result, answered_at = self._ask(Request(name="start", arguments=request), left_s, deadline_s)
        return StartReport.model_validate(result), answered_at - self._spawned_at

    def stage(self, name: str, deadline_s: float, **arguments: Any) -> StageResult:
        """Runs one stage in the child.

        Raises ``StageTimeoutError`` after killing it at the deadline, the class of its death when it died, and what the
        stage raised, by its code.
        """
        result, _ = self._ask(Request(name=name, arguments=arguments), deadline_s, deadline_s)
        return StageResult.model_validate(result)

    def job(self, dotted: str, arguments: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """Calls ``module:function(**arguments, report=...)`` in the child; returns its JSON document."""
        result, _ = self._ask(Request(name="job", arguments={"dotted": dotted, **arguments}), deadline_s, deadline_s)
        return result

    def interrupt(self, why: Wan22Error) -> None:
        """From another thread: what the child is asked for, now or next, ends in ``why``, and the child with it."""
        self._messages.put((time.monotonic(), why))

    def close(self) -> None:
        """Kills the child and its group, if it lives."""
        if self._process is not None:
            kill_group(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    _close_quietly(pipe)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _ask(self, request: Request, left_s: float, deadline_s: float) -> tuple[dict[str, Any], float]:
        if self._process is None or self._process.stdin is None:
            raise WorkerKilledError("The worker is not running.", next_action="Start it before asking it for a stage.")
        until = time.monotonic() + left_s
        try:
            self._process.stdin.write(request.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died(request.name) from None
        heard_at, progress = time.monotonic(), None
        while True:
            try:
                at, message = self._messages.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise self._timed_out(request.name, deadline_s, time.monotonic() - heard_at, progress) from None
            if message is None:
                raise self._died(request.name)
            if isinstance(message, Wan22Error):
                self.close()
                raise message
            heard_at = at
            if isinstance(message, Success):
                return message.result, at
            if isinstance(message, Failure):
                raise _rebuilt(message, self.log_path)
            progress = self._pass_on(message) or progress

    def _pass_on(self, message: AnyMessage) -> Progress | None:
        """Hands progress and log records to who asked for them; returns the progress."""
        if isinstance(message, LogMessage):
            logging.getLogger(f"wan22.worker.{message.logger}").log(message.level, "%s", message.text)
        if not isinstance(message, ProgressMessage):
            return None
        if self._on_progress is not None:
            self._on_progress(message.progress)
        return message.progress

    def _timed_out(
        self, stage: str, deadline_s: float, silent_s: float, progress: Progress | None
    ) -> StageTimeoutError:
        self.close()
        hung = silent_s > _HEARTBEAT_OVERDUE_S
        state = (
            f"hung: no heartbeat for {silent_s:.1f} s, so one call held the interpreter" if hung else "still working"
        )
        reached = f" at {progress.fraction:.0%}" if progress and progress.fraction is not None else ""
        return StageTimeoutError(
            f"The stage {stage} did not end within {deadline_s:g} s and was killed ({state}{reached}).",
            next_action=f"Look at the worker's log {self.log_path}, or give the stage a longer deadline.",
            details={
                "stage": stage,
                "deadline_s": deadline_s,
                "silent_s": round(silent_s, 3),
                "hung": hung,
                "log": str(self.log_path),
            },
        )

    def _died(self, stage: str) -> Exception:
        process, before = self._process, self._oom_kills
        self.close()
        returncode = process.returncode if process is not None else None
        return death_of(stage, returncode, before, kernel_oom_kills(), self.log_path)


def run_job(
    dotted: str,
    arguments: dict[str, Any],
    *,
    deadline_s: float,
    log_path: Path,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """One function in a child process of its own: for what needs torch outside a benchmark."""
    with ModelWorker(log_path, on_progress) as worker:
        worker.spawn()
        return worker.job(dotted, {**arguments}, deadline_s)


def _read(stream: IO[bytes], messages: queue.Queue[_Heard]) -> None:
    """Reads until the pipe ends; a line that is no message counts as its end."""
    try:
        for line in stream:
            messages.put((time.monotonic(), MESSAGE.validate_json(line)))
    except ValueError as error:  # the pipe was closed under us, or garbage
        logging.getLogger("wan22.worker").debug("the worker's pipe ended: %s", error)
    messages.put((time.monotonic(), None))


def _close_quietly(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError as error:  # a request that a dead child never read is still in the buffer
        logging.getLogger("wan22.worker").debug("closing the worker's pipe: %s", error)


def _rebuilt(failure: Failure, log_path: Path) -> Exception:
    kind = error_classes().get(failure.code, StageFailedError)  # an engine may raise a class of its own
    details = {**failure.details, "log": str(log_path)}
    return kind(failure.message, next_action=failure.next_action, details=details)
