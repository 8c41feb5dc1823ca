"""A run's rows say whether its weights came from the disk or from memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.session.test_session import run
from tests.worker.test_worker import faulty_spec
from wan22core import page_cache
from wan22core.records import Stage


def test_the_label_is_what_the_cache_held_before_the_first_load(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    files = sorted(folder.rglob("*.safetensors"))
    spec = faulty_spec(repeats=1, warmups=0)
    page_cache.fill(files)
    if (held := page_cache.cached(files)).fraction is None:
        pytest.skip(f"what the page cache holds can't be seen here: {held.reason}")
    warm = run(spec, folder)
    loads = [stage for stage in warm.stages if stage.stage is Stage.LOAD and stage.component is None]
    assert ([stage.cached_fraction for stage in loads], warm.labels.page_cache) == ([1.0], "warm")
    if reason := next((reason for reason in map(page_cache.empty, files) if reason), None):
        pytest.skip(f"files here can't be made cold: {reason}")
    cold = run(spec, folder)
    (held_then,) = [stage.cached_fraction for stage in cold.stages if stage.stage is Stage.LOAD and not stage.component]
    assert held_then is not None and held_then < 0.5, "verifying the files brings little of them back"
    assert cold.labels.page_cache == ("cold" if held_then <= 0.05 else "unknown")
