"""What a run has done so far, on disk while it runs: a killed run goes on from its last finished stage.

``journal.jsonl`` lies in the run's folder from the start of the run until its reports are written. A header, then one
line for each stage that ended; JSON only, nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from wan22core.errors import DeviceBusyError, UserInputError
from wan22core.files import LineWriter, whole_lines
from wan22core.records import Record, RepeatKind, Stage, StageRecord, StageStatus
from wan22core.specs import BenchmarkSpec

FILE = "journal.jsonl"
_LOCK = ".journal.lock"
_NEXT = "Run the benchmark again from the start."
_AFTER_LATENTS = (Stage.DECODE, Stage.WRITE)
_Video = tuple[RepeatKind, int]
R = TypeVar("R", bound=Record)


class JournalHeader(Record):
    """What the run was asked to do."""

    schema_version: Literal[1] = 1
    run_id: str
    created_at: datetime
    command: str
    """How to run it again from the start."""
    spec: BenchmarkSpec


class SavedRun(Record):
    """A run that was ended before its reports were written."""

    header: JournalHeader
    stages: list[StageRecord] = Field(default_factory=list)
    """All that ended, in their order."""

    def finished(self) -> list[StageRecord]:
        """The stages that need not run again: loads, whole videos, and what the latents on disk stand for.

        A stage that failed runs again, and so does the video that it belongs to; a load that failed before another one
        succeeded is part of how the run came to what it is.
        """
        ended: dict[_Video, set[Stage]] = {}
        for stage in filter(_is_ok, self.stages):
            ended.setdefault(_video(stage), set()).add(stage.stage)
        saved = [_video(stage) for stage in self.stages if stage.stage is Stage.SAVE_LATENTS and _is_ok(stage)]
        loads = [at for at, stage in enumerate(self.stages) if stage.stage is Stage.LOAD and _is_ok(stage)]

        def stays(at: int, stage: StageRecord) -> bool:
            if stage.kind is RepeatKind.SETUP:
                return _is_ok(stage) or at < max(loads, default=0)
            video = _video(stage)
            whole = Stage.WRITE in ended.get(video, ())
            return _is_ok(stage) and (whole or (saved[-1:] == [video] and stage.stage not in _AFTER_LATENTS))

        return [stage for at, stage in enumerate(self.stages) if stays(at, stage)]


def _is_ok(stage: StageRecord) -> bool:
    return stage.status is StageStatus.OK


def _video(stage: StageRecord) -> _Video:
    return stage.kind, stage.repeat


class Journal:
    """Appends; each stage is on the disk before the next one begins. One process at a time holds a run."""

    def __init__(self, lines: LineWriter, path: Path, lock: FileLock) -> None:
        self._lines = lines
        self._path = path
        self._lock = lock

    @classmethod
    def create(cls, folder: Path, header: JournalHeader) -> Self:
        """The journal of a new run. Raises ``InsufficientDiskSpaceError`` or ``StorageError``."""
        lock = _locked(folder)
        journal = cls(LineWriter(folder / FILE), folder / FILE, lock)
        journal._write(header)
        return journal

    @classmethod
    def reopen(cls, folder: Path) -> tuple[Self, SavedRun]:
        """The journal of a run that was ended, and what is in it.

        Raises ``DeviceBusyError`` when another process still runs it, ``UserInputError`` for what is no journal.
        """
        lock = _locked(folder)
        try:
            saved = read_journal(folder / FILE)
        except UserInputError:
            lock.release()
            raise
        return cls(LineWriter(folder / FILE), folder / FILE, lock), saved

    def append(self, stages: Sequence[StageRecord]) -> None:
        """Keeps stages that ended. Raises ``InsufficientDiskSpaceError`` or ``StorageError``."""
        for stage in stages:
            self._write(stage)

    def close(self) -> None:
        """Leaves the journal for a later process; harmless a second time."""
        self._lines.close()
        self._lock.release()

    def remove(self) -> None:
        """The run's documents are written: there is nothing to go on with."""
        self._lines.close()
        self._path.unlink(missing_ok=True)  # under the lock: who waits for it finds nothing to go on with
        self._lock.release()
        self._path.with_name(_LOCK).unlink(missing_ok=True)

    def _write(self, record: Record) -> None:
        self._lines.write(record.model_dump_json())
        self._lines.flush(sync=True)


def is_unfinished(folder: Path) -> bool:
    """Whether a run was ended there before its reports were written, or still runs."""
    return (folder / FILE).is_file()


def read_journal(path: Path) -> SavedRun:
    """What a run has done; raises ``UserInputError`` that names the line that can't be understood."""
    try:
        lines = whole_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path} can't be read: {error}.", next_action=_NEXT) from error
    if not lines:
        raise UserInputError(f"{path} holds no run.", next_action=_NEXT)
    stages = [_valid(StageRecord, path, number, line) for number, line in enumerate(lines[1:], start=2)]
    return SavedRun(header=_valid(JournalHeader, path, 1, lines[0]), stages=stages)


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DeviceBusyError(
            f"The run {folder.name} is still running.", next_action="Wait for it to end, or end it first."
        ) from error
    return lock


def _valid(model: type[R], path: Path, number: int, line: str) -> R:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise UserInputError(
            f"Line {number} of {path} is no {model.__name__} of this version: {error.errors()[0]['msg']}.",
            next_action=_NEXT,
        ) from error
