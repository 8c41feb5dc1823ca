"""What the tests of prepared checkpoints share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model.prepared import link
from tests.model.test_prepare import prepared
from wan22core.specs import Precision


@pytest.fixture(scope="session")
def prepared_in(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision], Path]:
    """``tiny`` with transformer and text encoder in that method, made once; read only."""
    made: dict[Precision, Path] = {}

    def folder_of(method: Precision) -> Path:
        if method not in made:
            folder = tmp_path_factory.mktemp("prepared") / method.value
            prepared(tiny_checkpoint, folder, {"transformer": method, "text_encoder": method, "vae": "none"})
            made[method] = folder
        return made[method]

    return folder_of


@pytest.fixture
def int8_copy(prepared_in: Callable[[Precision], Path], tmp_path: Path) -> Path:
    """In int8, by hard links: a test replaces files, it never writes into them."""
    return Path(shutil.copytree(prepared_in(Precision.INT8), tmp_path / "copy", copy_function=link))
