"""The child: reads requests from its stdin, answers on what was its stdout, one line each."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from wan22core.records import Progress
from wan22core.worker.death import failure_of
from wan22core.worker.engine import import_object
from wan22core.worker.messages import AnyMessage, Failure, Heartbeat, LogMessage, ProgressMessage, Request, Success
from wan22core.worker.processes import die_with_parent

_HEARTBEAT_S = 0.5
_PROGRESS_S = 0.1
_PATHS = ("path", "checkpoint", "latents", "frames")
"""Arguments of the stages that are paths."""


class Channel:
    """The pipe to the parent; any thread may send."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what libraries print goes to the log, not between the messages
        self._lock = threading.Lock()
        self._reported_at = 0.0

    def send(self, message: AnyMessage) -> None:
        line = message.model_dump_json().encode() + b"\n"
        with self._lock:
            self._pipe.write(line)
            self._pipe.flush()

    def report(self, progress: Progress) -> None:
        """Passes progress on, at most ten times a second; the end of a stage always."""
        now = time.monotonic()
        if now - self._reported_at >= _PROGRESS_S or progress.fraction == 1.0:
            self._reported_at = now
            self.send(ProgressMessage(progress=progress))

    def beat(self) -> None:
        """Sends heartbeats for ever."""
        while True:
            self.send(Heartbeat())
            time.sleep(_HEARTBEAT_S)


class _Forward(logging.Handler):
    """Log records to the parent; the worker's log file has them through stderr."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(LogMessage(level=record.levelno, logger=record.name, text=record.getMessage()))


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    faulthandler.enable()
    channel = Channel()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger().addHandler(_Forward(channel))
    threading.Thread(target=channel.beat, name="heartbeat", daemon=True).start()
    with closing(_Handler(channel)) as handle:
        for line in sys.stdin.buffer:
            channel.send(answer(handle, Request.model_validate_json(line)))


class _Handler:
    """Dispatches requests; the stages are imported when the first one needs them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._runner: Any = None

    def __call__(self, request: Request) -> dict[str, Any]:
        arguments = dict(request.arguments)
        if request.name == "job":
            function = import_object(arguments.pop("dotted"))
            return dict(function(**arguments, report=self._channel.report))
        from wan22core.worker.stages import StageRunner

        if request.name == "start":
            sys.path += [path for path in arguments.pop("paths") if path not in sys.path]
            self.close()
            with _kept_for_ever():
                self._runner = StageRunner(self._channel.report, **arguments)
            return dict(self._runner.start_report().model_dump(mode="json"))
        arguments |= {key: Path(arguments[key]) for key in _PATHS if arguments.get(key) is not None}
        return dict(self._runner.run(request.name, arguments).model_dump(mode="json"))

    def close(self) -> None:
        """Puts the host's settings back."""
        if self._runner is not None:
            self._runner.close()


@contextmanager
def _kept_for_ever() -> Iterator[None]:
    """What is made here is never looked at by the garbage collector.

    torch and diffusers are 450,000 objects that stay: while they are imported, collecting takes a tenth of the time,
    and afterwards every full collection (a component that leaves) looked at them for a quarter of a second.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def answer(handle: Callable[[Request], dict[str, Any]], request: Request) -> Success | Failure:
    """The result of a request, or the failure that its exception means."""
    try:
        return Success(result=handle(request))
    except Exception as error:  # noqa: BLE001 - the boundary of the process: every exception becomes a typed failure
        traceback.print_exc()
        known = failure_of(error, request.name)
        return Failure(
            code=known.code, message=known.message, next_action=known.next_action, details=dict(known.details)
        )


if __name__ == "__main__":
    main()
