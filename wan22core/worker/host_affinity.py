"""The processors that this process runs on. Linux keeps a set for each thread; elsewhere nothing is bound."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wan22core.errors import IncompatibleHardwareError


def current() -> frozenset[int]:
    """The CPUs of the calling thread, which threads that it starts inherit."""
    if sys.platform != "linux":
        raise _not_here()
    return frozenset(os.sched_getaffinity(0))


def bind(cpus: Iterable[int]) -> None:
    """Moves the calling thread, and those threads of the process that share its set, to ``cpus``.

    A thread that somebody gave a set of its own keeps it. Raises ``OSError`` where the kernel refuses; it drops CPUs
    that are not there, and refuses only when none is left, so what it made of them has to be read back.
    """
    if sys.platform != "linux":
        raise _not_here()
    before, wanted = os.sched_getaffinity(0), set(cpus)
    for thread in (int(path.name) for path in Path("/proc/self/task").iterdir()):
        with suppress(ProcessLookupError):  # it ended meanwhile
            if os.sched_getaffinity(thread) == before:
                os.sched_setaffinity(thread, wanted)


def _not_here() -> IncompatibleHardwareError:
    return IncompatibleHardwareError(
        f"A process can't be bound to processors on {sys.platform}.", next_action="Use --host-settings stock."
    )
