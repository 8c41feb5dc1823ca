"""The folder of one run, and the names of what lies in it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wan22core.errors import UnknownNameError, UserInputError
from wan22core.files import require_writable_folder
from wan22core.records import RepeatKind
from wan22core.recovery.journal import is_unfinished


@dataclass(frozen=True)
class RunFolder:
    """``runs/<run_id>/``: everything that a run leaves."""

    run_id: str
    path: Path

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def latents(self) -> Path:
        return self.path / "latents.safetensors"

    @property
    def frames(self) -> Path:
        """The frames of the last measured repeat as they were decoded, where the spec keeps them."""
        return self.path / "frames.npy"

    @property
    def trace(self) -> Path:
        return self.path / "trace.jsonl"

    @property
    def document(self) -> Path:
        return self.path / "run.json"

    @property
    def validation(self) -> Path:
        return self.path / "validation.json"

    def video(self, kind: RepeatKind) -> Path:
        """The last measured repeat's video is ``video.mp4``; repeats of one seed make the same one."""
        return self.path / ("video.mp4" if kind is RepeatKind.MEASURED else f"{kind.value}.mp4")

    def files(self) -> dict[str, str]:
        """The files of a finished run by what they are; video, latents and frames only where there are any."""
        names = {
            "document": self.document.name,
            "stages": "stages.parquet",
            "samples": "samples.parquet",
            "trace": self.trace.name,
            "validation": self.validation.name,
            "report_html": "report.html",
            "report_md": "report.md",
            "worker_log": self.log.name,
        }
        made = {"video": self.video(RepeatKind.MEASURED), "latents": self.latents, "frames": self.frames}
        found = {what: str(path) for what, path in made.items() if path.exists()}
        return {what: str(self.path / name) for what, name in names.items()} | found


def new_run_id() -> str:
    """Sorts by time, and two at once differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def new_run_folder(runs_path: Path, run_id: str) -> RunFolder:
    """Makes the folder of a new run; raises ``RunsFolderError`` where nothing can be written, ``UserInputError`` for an
    id that is taken."""
    require_writable_folder(runs_path)
    folder = RunFolder(run_id=run_id, path=runs_path / run_id)
    if folder.path.exists():
        raise UserInputError(
            f"There is a run {run_id} already.", next_action="Give another id, or go on with that run by --resume."
        )
    require_writable_folder(folder.path)
    return folder


def unfinished_run(runs_path: Path, run_id: str) -> RunFolder:
    """The folder of a run that was ended before its reports were written, by its id; ``UnknownNameError`` without."""
    path = runs_path / run_id
    if Path(run_id).name == run_id and is_unfinished(path):
        return RunFolder(run_id=run_id, path=path)
    if Path(run_id).name == run_id and (path / "run.json").is_file():
        raise UnknownNameError(
            f"The run {run_id} is finished: there is nothing to go on with.", next_action=f"wan22 report {run_id}"
        )
    unfinished = sorted((each.name for each in runs_path.glob("*/") if is_unfinished(each)), reverse=True)
    raise UnknownNameError(
        f"There is no run {run_id!r} in {runs_path} that was cut off.",
        next_action=f"Cut off were: {', '.join(unfinished[:5]) or 'none'}.",
    )
