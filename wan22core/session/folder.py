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
        """What is there, by what it is."""
        names = {
            "document": "run.json",
            "stages": "stages.parquet",
            "samples": "samples.parquet",
            "validation": "validation.json",
            "report_html": "report.html",
            "report_md": "report.md",
            "video": "video.mp4",
            "latents": "latents.safetensors",
            "worker_log": "worker.log",
        }
        return {what: str(self.path / name) for what, name in names.items() if (self.path / name).exists()}


def new_run_folder(runs_path: Path) -> RunFolder:
    """Makes the folder of a new run; raises ``RunsFolderError`` where nothing can be written."""
    require_writable_folder(runs_path)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    folder = RunFolder(run_id=run_id, path=runs_path / run_id)
    require_writable_folder(folder.path)
    return folder
