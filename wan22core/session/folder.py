"""The folder of one run, and the names of what lies in it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wan22core.files import require_writable_folder
from wan22core.records import RepeatKind


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
    def document(self) -> Path:
        return self.path / "run.json"

    @property
    def validation(self) -> Path:
        return self.path / "validation.json"

    def video(self, kind: RepeatKind) -> Path:
        """The last measured repeat's video is ``video.mp4``; repeats of one seed make the same one."""
        return self.path / ("video.mp4" if kind is RepeatKind.MEASURED else f"{kind.value}.mp4")

    def files(self) -> dict[str, str]:
        """The files of a finished run by what they are; video and latents only where there are any."""
        names = {
            "document": self.document.name,
            "stages": "stages.parquet",
            "samples": "samples.parquet",
            "validation": self.validation.name,
            "report_html": "report.html",
            "report_md": "report.md",
            "worker_log": self.log.name,
        }
        made = {"video": self.video(RepeatKind.MEASURED), "latents": self.latents}
        found = {what: str(path) for what, path in made.items() if path.exists()}
        return {what: str(self.path / name) for what, name in names.items()} | found


def new_run_id() -> str:
    """Sorts by time, and two at once differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def new_run_folder(runs_path: Path, run_id: str) -> RunFolder:
    """Makes the folder of a new run; raises ``RunsFolderError`` where nothing can be written."""
    require_writable_folder(runs_path)
    folder = RunFolder(run_id=run_id, path=runs_path / run_id)
    require_writable_folder(folder.path)
    return folder
