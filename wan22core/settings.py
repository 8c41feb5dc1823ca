"""Where things live and which switches are set: the only file that reads or writes the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _default_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("wan22", appauthor=False))


class Settings(BaseSettings):
    """Paths and switches, each settable as ``WAN22_<NAME>``. Reading them creates nothing."""

    model_config = SettingsConfigDict(env_prefix="WAN22_", frozen=True, extra="ignore")

    data_dir: Path = Field(default_factory=_default_data_dir)
    """The user's data folder: history, weights, locks, the local Prefect server's database."""
    runs_dir: Path | None = None
    """Where run folders go; None means ``<data_dir>/runs``."""
    weights_dir: Path | None = None
    """Where made and prepared checkpoints go; None means ``<data_dir>/weights``."""
    database_url: str | None = None
    """SQLAlchemy URL of the history; None means SQLite in the data folder."""
    server_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the local Prefect server, to open its UI during a run; None takes a free one."""
    sample_interval_s: float = Field(default=0.1, gt=0.005, le=60)
    """Requested distance of two telemetry samples."""

    @field_validator("data_dir", "runs_dir", "weights_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Children have other working folders, and a report is linked to."""
        return path.expanduser().absolute() if path is not None else None

    @property
    def runs_path(self) -> Path:
        return self.runs_dir or self.data_dir / "runs"

    @property
    def weights_path(self) -> Path:
        return self.weights_dir or self.data_dir / "weights"

    @property
    def locks_path(self) -> Path:
        return self.data_dir / "locks"

    @property
    def validations_path(self) -> Path:
        """A folder for each validation."""
        return self.data_dir / "validations"

    @property
    def outbox_path(self) -> Path:
        """Runs that wait for the history's database."""
        return self.data_dir / "outbox"

    @property
    def embeddings_path(self) -> Path:
        """Embeddings of prompts that were encoded before."""
        return self.data_dir / "embeddings"

    @property
    def compile_cache_path(self) -> Path:
        """Code that torch compiled, for the next process."""
        return self.data_dir / "compile-cache"

    @property
    def logs_path(self) -> Path:
        """Logs of what runs outside a benchmark."""
        return self.data_dir / "logs"

    @property
    def prefect_home(self) -> Path:
        return self.data_dir / "prefect"

    @property
    def history_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'history.db'}"


def export(*, runs_dir: Path) -> None:
    """Sets an option of the command line for this process and its children."""
    os.environ["WAN22_RUNS_DIR"] = str(runs_dir)


def read_environment(name: str) -> str | None:
    """One variable of this process's environment, None when it is not set."""
    return os.environ.get(name)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: ours, unbuffered, with ``extra`` on top.

    torch's own place for compiled code is the system's temporary folder, which does not outlive a restart.
    """
    environment = dict(os.environ)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Settings().compile_cache_path))
    environment.update(extra or {})
    return environment
