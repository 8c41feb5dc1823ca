"""Shared by every test: the user's data folder is never touched, the tiny checkpoint is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan22core.model.checkpoint import make_random


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded random checkpoint of ``tiny``; read only."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    make_random(folder=str(folder), architecture="tiny", seed=0, report=lambda _: None)
    return folder
