"""A Prefect API for this process: the standing one that is configured, or one of our own that dies with us."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wan22core.errors import OrchestratorError, PortInUseError
from wan22core.settings import Settings, child_environment
from wan22core.worker.processes import kill_group, spawn

_READY_S = 90.0
_POLL_S = 0.1
_DRAIN_S = 5.0
_IDLE_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)
"""What a server that lives for one command has no use for: schedules, workers, automations. They poll all the time."""


@contextmanager
def prefect_api(settings: Settings) -> Iterator[str]:
    """The URL of an API that answers, set for this process.

    Raises ``OrchestratorError`` when the configured one does not answer or our own does not start, ``PortInUseError``
    when the port that was asked for is taken.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    standing = get_current_settings().api.url
    if standing is not None:
        _require_answer(standing)
        yield standing
        return
    log_path = settings.prefect_home / "server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    port = _free_port(settings.server_port)
    with log_path.open("ab") as log:
        process = _start(port, settings, log)
        try:
            url = f"http://127.0.0.1:{port}/api"
            _wait_until_ready(url, process, log_path)
            with temporary_settings({PREFECT_API_URL: url}):
                yield url
                for service in (APILogWorker, EventsWorker):
                    service.drain_all(timeout=_DRAIN_S)  # what is still queued would find no server
        finally:
            kill_group(process)


def _start(port: int, settings: Settings, log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = child_environment(
        {
            "PREFECT_HOME": str(settings.prefect_home),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _IDLE_SERVICES},
        }
    )
    command = [sys.executable, "-P", "-m", "flows.server_process", str(os.getpid()), str(port)]
    return spawn(command, environment, log, pipes=False)


def _free_port(asked: int | None) -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", asked or 0))
        except OSError as error:
            raise PortInUseError(
                f"The port {asked} for the local Prefect server is in use.",
                next_action="Set WAN22_SERVER_PORT to another one, or unset it.",
            ) from error
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    until = time.monotonic() + _READY_S
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > until:
            what = "ended at once" if process.poll() is not None else f"was not ready within {_READY_S:g} s"
            raise OrchestratorError(
                f"The local Prefect server {what}.", next_action=f"Look at its log {log_path}, then run again."
            )
        time.sleep(_POLL_S)


def _require_answer(url: str) -> None:
    if not _answers(url):
        raise OrchestratorError(
            f"The Prefect server at {url} does not answer.",
            next_action="Start it, or unset PREFECT_API_URL: wan22 then starts one of its own for the run.",
        )


def _answers(url: str) -> bool:
    if not url.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 - the scheme was looked at
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
