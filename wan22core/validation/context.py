"""What all checks of one validation share: this machine or the one in its place, settings, where things are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wan22core.files import write_text
from wan22core.hardware.detect import detect
from wan22core.hardware.snapshot import read_snapshot
from wan22core.records import HardwareProfile, MachineProfile, TorchFacts
from wan22core.settings import Settings
from wan22core.worker.client import run_job

_SNAPSHOTS = Path(__file__).parent / "snapshots"
_TORCH_S = 120.0


@dataclass(frozen=True)
class Context:
    """One validation."""

    id: str
    settings: Settings
    replayed: MachineProfile | None = None
    """The machine whose dumps take this one's place."""
    replayed_from: str | None = None
    """Their folder."""

    @classmethod
    def new(cls, validation_id: str, settings: Settings, folder: Path | None = None) -> Context:
        """Raises ``UserInputError`` for a folder without dumps that are understood."""
        if folder is None:
            return cls(validation_id, settings)
        return cls(validation_id, settings, read_snapshot(folder), str(folder))

    @property
    def folder(self) -> Path:
        """What this validation leaves: its report, and the logs of its children."""
        return self.settings.validations_path / self.id

    def prepare(self) -> None:
        """Makes the folder with an empty log, so that a place that can't be written is known before anything runs.

        Raises ``StorageError`` and ``InsufficientDiskSpaceError``.
        """
        write_text(self.log_path, "")

    @property
    def log_path(self) -> Path:
        """Tracebacks and what the children printed."""
        return self.folder / "validation.log"

    @cached_property
    def machine(self) -> MachineProfile:
        """The machine that is validated."""
        return self.replayed or self.here

    @property
    def machine_name(self) -> str:
        """What to call it."""
        return "this machine" if self.replayed_from is None else f"the dumps in {self.replayed_from}"

    @cached_property
    def here(self) -> HardwareProfile:
        """This machine, whatever is validated."""
        return detect(self.settings.data_dir)

    @cached_property
    def torch(self) -> TorchFacts:
        """What torch can use here, asked in a child."""
        answer = run_job("wan22core.worker.host:torch_facts_job", {}, deadline_s=_TORCH_S, log_path=self.log_path)
        return TorchFacts.model_validate(answer)


def packaged(name: str) -> tuple[MachineProfile, str]:
    """A snapshot that comes with this package, and what to call it."""
    return read_snapshot(_SNAPSHOTS / name), f"from a snapshot: {name}"
