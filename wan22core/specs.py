"""What is to be measured: workloads, weights, recipes and the benchmark made of them. Building one touches nothing."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wan22core.targets import SMOKE_LIMITS, TARGETS, RecipeClass, Target

SPATIAL_MULTIPLE = 32  # VAE 16x in space, then the transformer's 2x2 patches
TEMPORAL_FACTOR = 4  # frames are 4k+1: the first frame is coded alone
MAX_SIDE = 2560
MAX_FRAMES = 481


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Workload(_Spec):
    """One video to make. Shapes that the model can't make are refused with the nearest that it can."""

    name: str = Field(default="custom", min_length=1)
    """Name under which history keeps it; a workload with overrides is named by its values."""
    width: int = Field(gt=0, le=MAX_SIDE)
    """Pixels, a multiple of 32."""
    height: int = Field(gt=0, le=MAX_SIDE)
    """Pixels, a multiple of 32."""
    frames: int = Field(gt=0, le=MAX_FRAMES)
    """4k+1 frames."""
    fps: int = Field(default=24, ge=1, le=60)
    """Frames per second of the written file."""
    steps: int = Field(default=50, ge=1, le=200)
    """Denoising steps."""
    guidance: float = Field(default=5.0, ge=0, le=30)
    """Classifier-free guidance; above 1 a step is two forwards."""
    flow_shift: float = Field(default=5.0, gt=0, le=20)
    """Shift of the flow-matching schedule."""
    prompt: str = Field(default="A cat walks along a garden wall in the evening sun.", min_length=1, max_length=2000)
    """What to show."""
    negative_prompt: str = Field(default="", max_length=2000)
    """What to avoid."""
    image_to_video: bool = False
    """Start from an image."""
    image: Path | None = None
    """The start image; None makes a deterministic synthetic one of the asked shape."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Seed of the start noise."""

    @model_validator(mode="after")
    def _shape_is_native(self) -> Self:
        problems = [
            f"{side} {value} is not a multiple of {SPATIAL_MULTIPLE}: "
            f"the nearest valid value is {nearest_multiple(value)}"
            for side, value in (("width", self.width), ("height", self.height))
            if value % SPATIAL_MULTIPLE
        ]
        if self.frames % TEMPORAL_FACTOR != 1:
            problems.append(
                f"frames {self.frames} is not 4k+1: the nearest valid value is {nearest_frames(self.frames)}"
            )
        if self.image is not None and not self.image_to_video:
            problems.append("an image was given, but image_to_video is off")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def duration_s(self) -> float:
        """Length of the video in seconds."""
        return self.frames / self.fps

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(frames, height, width) of the latents: 4x in time, 16x in space."""
        return (self.frames - 1) // TEMPORAL_FACTOR + 1, self.height // 16, self.width // 16

    @property
    def identity(self) -> tuple[int, int, int, int, int, float, float, bool]:
        """What makes it the workload that it is; the words, the picture and the seed may differ."""
        shape = (self.width, self.height, self.frames, self.fps, self.steps)
        return (*shape, self.guidance, self.flow_shift, self.image_to_video)

    @property
    def tokens(self) -> int:
        """Sequence length in the transformer: latents in patches of 1x2x2."""
        frames, height, width = self.latent_shape
        return frames * (height // 2) * (width // 2)


def nearest_multiple(value: int) -> int:
    """The nearest positive multiple of 32 up to the largest side."""
    return min(max(SPATIAL_MULTIPLE, round(value / SPATIAL_MULTIPLE) * SPATIAL_MULTIPLE), MAX_SIDE)


def nearest_frames(frames: int) -> int:
    """The nearest 4k+1 up to the longest video."""
    return min(max(1, round((frames - 1) / TEMPORAL_FACTOR) * TEMPORAL_FACTOR + 1), MAX_FRAMES)


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(name="smoke", width=160, height=160, frames=9, steps=5),
        Workload(name="2s-480p", width=832, height=480, frames=49),
        Workload(name="2s-720p", width=1280, height=704, frames=49),
        Workload(name="2s-720p-i2v", width=1280, height=704, frames=49, image_to_video=True),
        Workload(name="5s-720p", width=1280, height=704, frames=121),
    )
}


class Architecture(StrEnum):
    """The shapes of the model."""

    TI2V_5B = "ti2v-5b"
    TINY = "tiny"


class Weights(_Spec):
    """Which weights to run: random ones of a known architecture, a folder, or a hub repository."""

    model: str = Field(default="tiny", min_length=1)
    """``tiny`` or ``ti2v-5b`` (random weights of that architecture), a checkpoint folder, or a hub id."""
    seed: int = Field(default=0, ge=0)
    """Seed of random weights."""

    @property
    def random_architecture(self) -> Architecture | None:
        """The architecture when random weights were asked for."""
        return Architecture(self.model) if self.model in {member.value for member in Architecture} else None


class Precision(StrEnum):
    """Arithmetic of a component; int8 and fp8 are quantization, the others working precisions."""

    NONE = "none"
    """The checkpoint's own, only on request."""
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"


class Placement(StrEnum):
    """Where the components live while they are not used."""

    RESIDENT = "resident"
    """All on the device."""
    ENCODE_THEN_FREE = "encode_then_free"
    """The prompt is encoded and the text encoder freed before the transformer comes; the VAE has the room alone."""
    BLOCK_STREAM = "block_stream"
    """The same, and the transformer's blocks come one ahead of the computation."""


class Loader(StrEnum):
    """How weights get from the files to the device."""

    STOCK = "stock"
    """The libraries' own ``from_pretrained``."""
    DIRECT = "direct"
    """Straight into the final tensors."""


class Tiling(StrEnum):
    """How the VAE codes a frame."""

    OFF = "off"
    """Whole."""
    DEFAULT = "default"
    """In diffusers' own tiles."""
    AUTO = "auto"
    """Whole, or in the largest tiles that the memory which is left holds by the memory model."""


class Recipe(_Spec):
    """A complete way of running the model."""

    name: str
    """Name under which history keeps it."""
    recipe_class: RecipeClass
    """What it may change in the result."""
    transformer_precision: Precision
    """Working precision, or quantization method, of the transformer."""
    text_encoder_precision: Precision
    """Precision of the text encoder; int8 and fp8 are of its weights, the products stay in bf16."""
    vae_precision: Precision
    """Working precision of the VAE."""
    placement: Placement = Placement.RESIDENT
    """Where the components live."""
    loader: Loader = Loader.STOCK
    """How the weights are read."""
    fp16_accumulation: bool = False
    """fp16 products with fp16 accumulation: twice the rate on GeForce cards."""
    attention_backend: str = "native"
    """Attention as diffusers names it."""
    vae_tiling: Tiling = Tiling.OFF
    """Whole frames or tiles; in older documents true is ``default`` and false is ``off``."""
    fallbacks: tuple[Precision, ...] = ()
    """Transformer precisions to try, in this order, when the asked one is unsupported, fails or is too slow."""
    placement_fallbacks: tuple[Placement, ...] = ()
    """Placements to try, in this order, when device memory runs out; for a yardstick, running out is the result."""

    @field_validator("vae_precision")
    @classmethod
    def _is_a_working_precision(cls, value: Precision) -> Precision:
        if value in (Precision.INT8, Precision.FP8):
            raise ValueError(f"the VAE is not run in {value.value}: take none, fp32, bf16 or fp16")
        return value

    @field_validator("vae_tiling", mode="before")
    @classmethod
    def _once_a_switch(cls, value: object) -> object:
        return (Tiling.DEFAULT if value else Tiling.OFF) if isinstance(value, bool) else value


class Deadlines(_Spec):
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


class OpaqueFunctions(_Spec):
    """A user's own loader and generator as ``module:function``, run in the worker; only load and generate are seen."""

    loader: Annotated[str, Field(pattern=_DOTTED)]
    """Called without arguments; returns the model."""
    generator: Annotated[str, Field(pattern=_DOTTED)]
    """Called with those of model, prompt, width, height, frames, fps, steps, guidance, seed that it takes."""


class BenchmarkSpec(_Spec):
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

    @model_validator(mode="after")
    def _names_are_true(self) -> Self:
        known = WORKLOADS.get(self.workload.name)
        if known is not None and known.identity != self.workload.identity:
            raise ValueError(f"a workload that is called {known.name} has its values: give another name")
        names = [limit.name for limit in (*self.targets, *self.smoke_limits)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two limits are called {', '.join(twice)}")
        return self
