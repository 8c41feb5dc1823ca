"""What the tests of the model share."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.model.prepared import link
from tests.model.test_prepare import prepared
from wan22core.model.engine import WanEngine
from wan22core.recipes import recipe
from wan22core.specs import BenchmarkSpec, Precision, Workload


@pytest.fixture(scope="package", autouse=True)
def _imports_are_not_collected() -> Iterator[None]:
    """As in the worker: a component that leaves is a full collection."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def embeddings(tiny_checkpoint: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of the default prompts, in bf16: for tests that are about what comes after."""
    spec = BenchmarkSpec(workload=Workload(name="words", width=64, height=64, frames=5), recipe=recipe("reference"))
    engine = WanEngine(spec, tiny_checkpoint, "cpu")
    engine.load(lambda _: None)
    return engine.encode()


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


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which embeddings are kept."""
    return tmp_path_factory.mktemp("kept")
