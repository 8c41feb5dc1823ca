"""Linux's own files under a root, which is ``/`` on this machine and a folder when another machine is replayed."""

from __future__ import annotations

import re
from pathlib import Path

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
HERE = Path("/")
"""The root of this machine; only here may psutil or the process itself be asked."""


def read_text(path: Path) -> str:
    """The file's text without blanks around it; a file that is not there says as much as an empty one."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def fields(text: str) -> dict[str, str]:
    """The ``name : value`` lines of ``text``."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_list(text: str) -> set[int]:
    """The numbers of a kernel list such as ``0-3,8,10-11``; blanks and an empty list name none."""
    found: set[int] = set()
    for part in text.split(","):
        if (match := _RANGE.fullmatch(part.strip())) is not None:
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
