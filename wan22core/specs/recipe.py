"""A complete way of running the model, and what each of its choices can be."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, field_validator

from wan22core.specs.base import Spec
from wan22core.specs.step_cache import StepCache
from wan22core.targets import RecipeClass


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


AUTO_ATTENTION = "auto"


class Recipe(Spec):
    """A complete way of running the model."""

    name: str
    """Name under which history keeps it."""
    recipe_class: RecipeClass
    """What it may change in the result."""
    transformer_precision: Precision
    """Working precision, or quantization method, of the transformer."""
    text_encoder_precision: Precision
    """Precision of the text encoder; int8 and fp8 are of its weights, the products stay in bf16."""
    vae_precision: Literal[Precision.NONE, Precision.FP32, Precision.FP16, Precision.BF16]
    """Working precision of the VAE, which has no quantization."""
    placement: Placement = Placement.RESIDENT
    """Where the components live."""
    loader: Loader = Loader.STOCK
    """How the weights are read."""
    fp16_accumulation: bool = False
    """fp16 products with fp16 accumulation: twice the rate on GeForce cards."""
    attention_backend: str = "native"
    """Attention as diffusers names it, or ``auto``: the fastest exact one there is on the device, by measuring."""
    distinct_timesteps: bool = False
    """Embed a timestep that many tokens share once, not once a token."""
    compiled: bool = False
    """Compile the transformer's blocks; where no compiler works they run as they are."""
    step_cache: StepCache | None = None
    """Forwards that take the blocks' result from an earlier step; None computes every one."""
    vae_tiling: Tiling = Tiling.OFF
    """Whole frames or tiles; in older documents true is ``default`` and false is ``off``."""
    fallbacks: tuple[Precision, ...] = ()
    """Transformer precisions to try, in this order, when the asked one is unsupported, fails or is too slow."""
    placement_fallbacks: tuple[Placement, ...] = ()
    """Placements to try, in this order, when device memory runs out; for a yardstick, running out is the result."""
    vram_budget_mib: int | None = Field(default=None, gt=0)
    """Device memory that the process keeps to, whatever the card has; None takes what there is."""

    @field_validator("vae_tiling", mode="before")
    @classmethod
    def _once_a_switch(cls, value: object) -> object:
        return (Tiling.DEFAULT if value else Tiling.OFF) if isinstance(value, bool) else value
