"""What is not portable about child processes: own groups, dying with the parent, the kernel's evidence."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO

import psutil

_PR_SET_PDEATHSIG = 1
_WATCH_INTERVAL_S = 0.2
_REAP_S = 10.0
_LAST = 19  # the weakest niceness there is


def spawn(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes], *, pipes: bool = True
) -> subprocess.Popen[bytes]:
    """A child in a process group of its own; its stderr (and stdout without ``pipes``) goes to ``log``.

    It stays in our session: Linux shares the processor between sessions before it looks at priorities (autogroup in
    ``sched(7)``), so that a process of low priority would take from one in another session all the same.

    Linux kills the child when the *thread* that started it ends, so all children are started by one thread that lives
    as long as this process.
    """
    return _spawner().submit(_popen, list(command), dict(environment), log, pipes).result()


@cache
def _spawner() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="wan22-spawner")


def _popen(command: list[str], environment: dict[str, str], log: IO[bytes], pipes: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipes else log,
        stderr=log,
        env=environment,
        process_group=0 if hasattr(os, "setpgid") else None,
    )


def die_with_parent(parent_pid: int) -> None:
    """Called in the child: the kernel kills it when the parent dies, however that happens.

    The watchdog thread beside it is all there is on other systems than Linux, ends what the child itself started, and
    can't run while a C call holds the interpreter's lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the request
        os._exit(1)
    threading.Thread(target=_watch, args=(parent_pid,), name="parent-watch", daemon=True).start()


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_WATCH_INTERVAL_S)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(1)


def run_last() -> None:
    """This process takes only the processor time that nobody else wants, where the system can be told so.

    The main thread calls it before it starts others.
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(_LAST)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a spawned child and its group, and reaps it. Harmless when it is gone already."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # gone, or a zombie on macOS
            process.kill()
    else:
        for child in _descendants(process.pid):
            child.kill()
        process.kill()
    try:
        process.wait(_REAP_S)
    except subprocess.TimeoutExpired:  # it hangs inside the kernel, which ends it when the driver or the disk answers
        logging.getLogger(__name__).warning("The process %s was killed and has not ended yet.", process.pid)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def kernel_oom_kills(root: Path = Path("/")) -> int | None:
    """How often the kernel killed for memory in this process's cgroup and those above it; None without a counter."""
    counts = [count for file in _oom_files(root) if (count := _oom_count(file)) is not None]
    return sum(counts) if counts else None


def _oom_files(root: Path) -> list[Path]:
    """The counters of cgroup v2 (``memory.events``) and v1 (``memory.oom_control``), own folder and those above."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        folder = base / path.lstrip("/")
        files += [parent / name for parent in (folder, *folder.parents) if parent.is_relative_to(base)]
    return files


def _oom_count(file: Path) -> int | None:
    try:
        fields = dict(line.split(maxsplit=1) for line in file.read_text().splitlines())
        return int(fields["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
