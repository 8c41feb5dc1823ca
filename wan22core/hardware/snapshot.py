"""A folder of dumps: another machine, or this one as it was. What is not understood is told, and the rest is read."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from wan22core.errors import UserInputError
from wan22core.hardware.formats import read_dump
from wan22core.hardware.formats.facts import Facts
from wan22core.hardware.merge import machine_of
from wan22core.records import MachineProfile

_MAX_FILES = 500
_MAX_BYTES = 8 * 2**20
_BINARY_SHARE = 0.1
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read_snapshot(folder: Path) -> MachineProfile:
    """The machine whose dumps are in ``folder``, with a note on every file that could not be used.

    Files are told by what is in them; only those that hold a bare number need a name (``nproc.txt``, ``cpu.max``).
    Raises ``UserInputError`` for a folder that is not there or holds nothing that is understood.
    """
    if not folder.is_dir():
        raise UserInputError(f"{folder} is no folder.", next_action="Give a folder with the dumps of one machine.")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    found: list[tuple[tuple[int, bool, str], Facts]] = []
    notes = [f"{len(files) - _MAX_FILES} more files are not read."] if len(files) > _MAX_FILES else []
    for path in files[:_MAX_FILES]:
        name = path.relative_to(folder).as_posix()
        text, note = _text_of(path, name)
        facts = read_dump(name, text) if text is not None else []
        # a second capture under load shows other temperatures and memory: the idle one counts
        found += [((rank, "load" in name.lower(), name), each) for rank, each in facts]
        if note is not None:
            notes.append(note)
        elif not facts:
            notes.append(f"{name}: nothing in it is known here.")
    if not found:
        raise UserInputError(
            f"{folder} holds no dump that is understood.",
            next_action="Put the output of nvidia-smi -q -x, lscpu or free into files there, or use --snapshot.",
        )
    return machine_of([facts for _, facts in sorted(found, key=lambda each: each[0])], notes)


def _text_of(path: Path, name: str) -> tuple[str | None, str | None]:
    """The file as text, or the reason why it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        return None, f"{name}: it can't be read: {error.strerror}."
    if not data.strip(b"\x00 \t\r\n"):
        return None, f"{name}: it is empty."
    text = _ANSI.sub("", _decoded(data)).replace("\r\n", "\n").replace("\x00", "")
    strange = sum((character < " " and character not in "\t\n\r") or character == "�" for character in text[:4096])
    if strange > _BINARY_SHARE * min(len(text), 4096):
        return None, f"{name}: it is no text."
    return text, None


def _decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 as PowerShell writes it when output is sent to a file."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")
