"""Runs the command line as people and pipelines do: in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

WAN22 = Path(sys.executable).with_name("wan22")
LONG = pytest.mark.timeout(240)


class Shell:
    """Runs wan22 with a data folder of its own, by which its processes are found again."""

    def __init__(self, data: Path, server_url: str | None = None) -> None:
        self.data = data
        self.environment = {**os.environ, "WAN22_DATA_DIR": str(data), "NO_COLOR": "1"}
        self.environment.pop("PREFECT_API_URL", None)
        if server_url is not None:
            self.environment["PREFECT_API_URL"] = server_url

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(WAN22), *arguments],
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            timeout=200,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(WAN22), *arguments], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("WAN22_DATA_DIR") == str(self.data)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue  # it ended while we looked, or is not ours to look at
        return found

    def processes_with(self, text: str) -> list[psutil.Process]:
        """Those whose command line has ``text``."""
        found = []
        for process in self.processes():
            try:
                if text in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until a process whose command line has ``text`` runs."""
        until = time.monotonic() + seconds
        while not self.processes_with(text):
            assert time.monotonic() < until, f"no process {text} within {seconds} s"
            time.sleep(0.05)

    def left_after(self, seconds: float) -> list[str]:
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.02)
        return [str(process) for process in left]
