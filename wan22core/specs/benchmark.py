"""One benchmark, complete: workload, weights, recipe, how often, where, and what is asserted."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wan22core.specs.base import Spec
from wan22core.specs.recipe import Recipe
from wan22core.specs.workload import WORKLOADS, Workload
from wan22core.targets import SMOKE_LIMITS, TARGETS, Target


class Architecture(StrEnum):
    """The shapes of the model."""

    TI2V_5B = "ti2v-5b"
    TINY = "tiny"


class Weights(Spec):
    """Which weights to run: random ones of a known architecture, a folder, or a hub repository."""

    model: str = Field(default="tiny", min_length=1)
    """``tiny`` or ``ti2v-5b`` (random weights of that architecture), a checkpoint folder, or a hub id."""
    seed: int = Field(default=0, ge=0)
    """Seed of random weights."""

    @property
    def random_architecture(self) -> Architecture | None:
        """The architecture when random weights were asked for."""
        return Architecture(self.model) if self.model in {member.value for member in Architecture} else None


class Deadlines(Spec):
    """Seconds after which the worker is killed, by stage."""

    start_s: float = Field(default=180, gt=0)
    """Process start and imports."""
    load_s: float = Field(default=1800, gt=0)
    """Loading every component."""
    quantize_s: float | None = Field(default=None, gt=0)
    """Quantizing; None computes it from the size and the method."""
    encode_s: float = Field(default=600, gt=0)
    """Text encoding."""
    encode_image_s: float = Field(default=600, gt=0)
    """Image encoding."""
    denoise_s: float = Field(default=7200, gt=0)
    """All steps."""
    decode_s: float = Field(default=3600, gt=0)
    """VAE decode."""
    write_s: float = Field(default=600, gt=0)
    """Writing and reading back the video."""


_DOTTED = r"^[\w.]+:[\w.]+$"
WAN_ENGINE = "wan22core.model.engine:WanEngine"


class OpaqueFunctions(Spec):
    """A user's own loader and generator as ``module:function``, run in the worker; only load and generate are seen."""

    loader: Annotated[str, Field(pattern=_DOTTED)]
    """Called without arguments; returns the model."""
    generator: Annotated[str, Field(pattern=_DOTTED)]
    """Called with those of model, prompt, width, height, frames, fps, steps, guidance, seed that it takes."""


class BenchmarkSpec(Spec):
    """One benchmark, complete: what runs, how often, where, and what is asserted."""

    schema_version: Literal[1] = 1
    """Version of this document."""
    workload: Workload
    """The video to make."""
    weights: Weights = Weights()
    """The weights to run."""
    recipe: Recipe
    """How to run them."""
    repeats: int = Field(default=3, ge=1, le=1000)
    """Measured generations."""
    warmups: int = Field(default=1, ge=0, le=100)
    """Generations before them, kept apart."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto takes the preferred GPU (wan22 hardware prefer), else the first CUDA device, else the CPU."""
    vram_limit_mib: int | None = Field(default=None, gt=0)
    """Emulated ceiling on the process's device memory."""
    targets: tuple[Target, ...] = TARGETS
    """Limits to assert."""
    smoke_limits: tuple[Target, ...] = SMOKE_LIMITS
    """Limits that only exercise the judging."""
    deadlines: Deadlines = Deadlines()
    """When the worker is killed."""
    engine: str = Field(default=WAN_ENGINE, pattern=rf"{_DOTTED}|^[\w.-]+$")
    """The system under test, created inside the worker: ``module:Class``, or its name in ``wan22.engines``."""
    opaque: OpaqueFunctions | None = None
    """A user's own functions instead of an engine."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads for torch; None leaves torch's own choice."""
    cache_embeddings: bool = False
    """Read the prompt's embeddings from the data folder where an earlier run left them; no encode is measured then."""
    keep_frames: bool = False
    """Keep the decoded frames beside the video, which an encoder changes: what frames of two runs are compared by."""
    host_settings: Literal["stock", "auto"] = "stock"
    """stock leaves the host as libraries find it; auto applies what planning computes for this machine."""

    @property
    def ceiling_mib(self) -> int | None:
        """What the process's device memory stays below: the tighter of the recipe's budget and the emulated ceiling."""
        return min((each for each in (self.recipe.vram_budget_mib, self.vram_limit_mib) if each), default=None)

    @model_validator(mode="after")
    def _names_are_true(self) -> Self:
        known = WORKLOADS.get(self.workload.name)
        if known is not None and known.identity != self.workload.identity:
            raise ValueError(f"a workload that is called {known.name} has its values: give another name")
        names = [limit.name for limit in (*self.targets, *self.smoke_limits)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two limits are called {', '.join(twice)}")
        return self
