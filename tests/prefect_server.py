"""A Prefect server for as long as tests need one, with a database of its own."""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from wan22core.worker.processes import kill_group, spawn

T = TypeVar("T")


@contextmanager
def standing_server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of its clients, ``PREFECT_API_URL`` among it; its log is in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-P", "-m", "flows.server_process", str(os.getpid()), str(port)]
    with (folder / "server.log").open("ab") as log:
        server = spawn(command, environment, log, pipes=False)
        try:
            poll(lambda: _is_healthy(environment["PREFECT_API_URL"]), 60)
            yield environment
        finally:
            kill_group(server)


def poll(question: Callable[[], T], seconds: float) -> T:
    """The first answer that is true; fails after ``seconds``."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < until, "no answer in time"
        time.sleep(0.2)
    return answer


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
