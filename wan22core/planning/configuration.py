"""How the model is placed and computed, as far as memory and time depend on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from wan22core.specs import AUTO_ATTENTION, CacheMethod, Placement, Precision, Recipe, StepCache, Tiling
from wan22core.targets import RecipeClass


class Mechanism(StrEnum):
    """Where the components are while others are used."""

    RESIDENT = "resident"
    """All on the device."""
    TEXT_ENCODER_FIRST = "text_encoder_first"
    """The prompt is encoded, the text encoder freed, then transformer and VAE come."""
    MODEL_OFFLOAD = "model_offload"
    """One component on the device at a time."""
    BLOCK_STREAM = "block_stream"
    """The blocks of text encoder and transformer pass through two slots on the device, one ahead."""
    GROUP_BLOCK = "group_block"
    """diffusers' group offload: the transformer's blocks stream through the device, one ahead."""
    GROUP_LEAF = "group_leaf"
    """Its single layers do."""


STREAMED = (Mechanism.BLOCK_STREAM, Mechanism.GROUP_BLOCK, Mechanism.GROUP_LEAF)

_Side = Annotated[int, Field(gt=0)]
TileShape = tuple[_Side, _Side, _Side, _Side]
"""Height, width, and the strides of both, pixels."""
DEFAULT_TILE: TileShape = (256, 256, 192, 192)
"""diffusers' own for this VAE."""
_AUTO_TILE: TileShape = (448, 416, 352, 320)
"""What ``auto`` is counted with where the room is not known: a 720p frame in two rows of four."""
_MECHANISMS = {
    Placement.RESIDENT: Mechanism.RESIDENT,
    Placement.ENCODE_THEN_FREE: Mechanism.TEXT_ENCODER_FIRST,
    Placement.BLOCK_STREAM: Mechanism.BLOCK_STREAM,
}
_TILES = {Tiling.OFF: None, Tiling.DEFAULT: DEFAULT_TILE, Tiling.AUTO: _AUTO_TILE}
_VAE_PRECISIONS = (Precision.NONE, Precision.FP32, Precision.FP16, Precision.BF16)


class Configuration(BaseModel):
    """One way to run the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recipe_class: RecipeClass
    mechanism: Mechanism
    transformer: Precision
    vae: Precision
    text_encoder: Precision = Precision.BF16
    """int8 and fp8 are of its weights: the products are in 16 bits."""
    fp16_accumulation: bool = False
    """16-bit products with 16-bit accumulation."""
    attention: Literal["native", "cudnn"] = "native"
    compiled: bool = False
    """The transformer's blocks are compiled."""
    step_cache: StepCache | None = None
    """Forwards that are left out; where the content decides which, times are of a video that leaves none out."""
    tile: TileShape | None = None
    """VAE tiles; None codes whole frames."""
    budget_mib: int | None = None
    """Device memory that it keeps to on a larger card."""

    @field_validator("vae")
    @classmethod
    def _is_not_quantized(cls, vae: Precision) -> Precision:
        if vae not in _VAE_PRECISIONS:
            raise ValueError(f"{vae.value} is a quantization of the transformer, and no precision of the VAE")
        return vae

    @classmethod
    def of(cls, recipe: Recipe) -> Configuration:
        """The configuration of a recipe; of the attentions that ``auto`` measures, cuDNN's is counted with."""
        text = recipe.text_encoder_precision
        by_measuring = recipe.attention_backend == AUTO_ATTENTION
        return cls(
            name=recipe.name,
            recipe_class=recipe.recipe_class,
            mechanism=_MECHANISMS[recipe.placement],
            transformer=recipe.transformer_precision,
            vae=recipe.vae_precision,
            text_encoder=Precision.BF16 if text is Precision.NONE else text,  # the hub's own is bf16
            fp16_accumulation=recipe.fp16_accumulation,
            attention="cudnn" if "cudnn" in recipe.attention_backend or by_measuring else "native",
            compiled=recipe.compiled,
            step_cache=recipe.step_cache,
            tile=_TILES[recipe.vae_tiling],
            budget_mib=recipe.vram_budget_mib,
        )


_BY_DTYPE = {
    "bfloat16": Precision.BF16,
    "float16": Precision.FP16,
    "int8": Precision.INT8,
    "float8_e4m3fn": Precision.FP8,
}
"""Precisions of the transformer that the time model has a rate for, by the torch dtype that most of it is in."""


def configuration_of(recipe: Recipe, dtype: str | None) -> Configuration | None:
    """The recipe as it really ran, its transformer in the torch dtype that was counted.

    None where that was not counted, the time model has no rate for it (fp32), or a step cache went by the content.
    """
    if recipe.step_cache is not None and recipe.step_cache.method is CacheMethod.FIRST_BLOCK:
        return None
    precision = _BY_DTYPE.get(dtype or "")
    if precision is None:
        return None
    accumulates = recipe.fp16_accumulation and precision is Precision.FP16
    ran = {"transformer": precision, "fp16_accumulation": accumulates}
    return Configuration.of(recipe).model_copy(update=ran)
