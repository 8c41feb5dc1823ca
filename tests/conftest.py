"""Shared by every test: the user's data folder is never touched, the tiny checkpoint is made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

EVERY_CORE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
if EVERY_CORE is not None and "PYTEST_XDIST_WORKER" in os.environ:
    # beside other test processes each keeps to its share: threads that wait for a core that another has cost the most
    _number, _count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, sorted(EVERY_CORE)[_number::_count] or EVERY_CORE)


_LONG_FIRST = ("flows", "deployments", "session", "model", "validation", "worker")
"""Folders of long files; the short ones at the end keep every process busy to the last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; within a file, and among the others, the order stays."""
    folders = {name: number for number, name in enumerate(_LONG_FIRST)}
    items.sort(key=lambda item: folders.get(item.path.parent.name, len(folders)))


@pytest.fixture
def every_core() -> Iterator[None]:
    """For what is about several cores: this process, and those that it starts, may use all of them."""
    if EVERY_CORE is None:
        yield
        return
    share = os.sched_getaffinity(0)
    _bind_threads(EVERY_CORE)
    yield
    _bind_threads(share)


def _bind_threads(cores: set[int]) -> None:
    """Every thread: a child inherits from the one that starts it."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(autouse=True, scope="session")
def _shared_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What torch compiles serves all tests: its headers alone take a quarter of a minute."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(shared / "compiled")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded random checkpoint of ``tiny``; read only."""
    from wan22core.model.checkpoint import make_random  # torch counts its threads when it is imported

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    make_random(folder=str(folder), architecture="tiny", seed=0, report=lambda _: None)
    return folder
