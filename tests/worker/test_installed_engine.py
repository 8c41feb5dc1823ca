"""An engine of another package, by a real entry point, in a real worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardware.machines import write
from tests.worker.test_worker import faulty_spec
from wan22core.errors import UserInputError
from wan22core.worker.client import ModelWorker


def test_an_installed_package_brings_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name in the spec; one that is not installed gets the names of those that are."""
    write(
        tmp_path,
        {
            "engine_plugin.py": "from tests.worker.engines import FaultyEngine as Other\n",
            "engine_plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: engine-plugin\nVersion: 1.0\n",
            "engine_plugin-1.0.dist-info/entry_points.txt": "[wan22.engines]\nother = engine_plugin:Other\n",
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    with ModelWorker(tmp_path / "w.log") as worker:
        worker.spawn()
        worker.start({"spec": faulty_spec(engine="other").model_dump(mode="json")})
        assert [part.component for part in worker.stage("load", 30).components] == ["transformer"]
        assert worker.stage("encode", 30).wall_s >= 0
    with ModelWorker(tmp_path / "w.log") as worker:
        worker.spawn()
        with pytest.raises(UserInputError, match="no engine 'another'") as caught:
            worker.start({"spec": faulty_spec(engine="another").model_dump(mode="json")})
        assert "other" in caught.value.next_action
