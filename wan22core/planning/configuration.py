"""How the model is placed and computed, as far as memory and time depend on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from wan22core.specs import Precision, Recipe
from wan22core.targets import RecipeClass


class Mechanism(StrEnum):
    """Where the components are while others are used."""

    RESIDENT = "resident"
    """All on the device."""
    TEXT_ENCODER_FIRST = "text_encoder_first"
    """The prompt is encoded, the text encoder freed, then transformer and VAE come."""
    MODEL_OFFLOAD = "model_offload"
    """One component on the device at a time."""
    GROUP_BLOCK = "group_block"
    """The transformer's blocks stream through the device, one ahead."""
    GROUP_LEAF = "group_leaf"
    """Its single layers do."""


STREAMED = (Mechanism.GROUP_BLOCK, Mechanism.GROUP_LEAF)


class Configuration(BaseModel):
    """One way to run the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recipe_class: RecipeClass
    mechanism: Mechanism
    transformer: Precision
    vae: Precision
    fp16_accumulation: bool = False
    """16-bit products with 16-bit accumulation."""
    attention: Literal["native", "cudnn"] = "native"
    compiled: bool = False
    """The transformer's blocks are compiled."""
    tile: tuple[int, int, int, int] | None = None
    """VAE tiles in pixels: height, width, and the strides of both; None decodes whole frames."""
    is_recipe: bool = False
    """Whether this version can run it: a configuration may be predicted before it is a recipe."""

    @classmethod
    def of(cls, recipe: Recipe) -> Configuration:
        """The configuration of a recipe."""
        return cls(
            name=recipe.name,
            recipe_class=recipe.recipe_class,
            mechanism=Mechanism(recipe.placement.value),
            transformer=recipe.transformer_precision,
            vae=recipe.vae_precision,
            attention="cudnn" if "cudnn" in recipe.attention_backend else "native",
            tile=(256, 256, 192, 192) if recipe.vae_tiling else None,
            is_recipe=True,
        )


def _tiles(side: int) -> tuple[int, int, int, int]:
    return side, side, side - 64, side - 64


def _predicted(name: str, mechanism: Mechanism, transformer: Precision, tile: int, **more: object) -> Configuration:
    quantized = transformer in (Precision.FP8, Precision.INT8) or bool(more.get("fp16_accumulation"))
    return Configuration(
        name=name,
        recipe_class=RecipeClass.QUANTIZED if quantized else RecipeClass.LOSSLESS,
        mechanism=mechanism,
        transformer=transformer,
        vae=Precision.BF16,
        tile=_tiles(tile),
        **more,  # type: ignore[arg-type]
    )


_FAST = {"attention": "cudnn", "compiled": True}
NOT_YET_RECIPES: tuple[Configuration, ...] = (
    _predicted("bf16_resident", Mechanism.RESIDENT, Precision.BF16, 384, **_FAST),
    _predicted("bf16_text_first", Mechanism.TEXT_ENCODER_FIRST, Precision.BF16, 384, **_FAST),
    _predicted(
        "fp16_accumulation_text_first",
        Mechanism.TEXT_ENCODER_FIRST,
        Precision.FP16,
        384,
        fp16_accumulation=True,
        **_FAST,
    ),
    _predicted("fp8_text_first", Mechanism.TEXT_ENCODER_FIRST, Precision.FP8, 384, **_FAST),
    _predicted("int8_text_first", Mechanism.TEXT_ENCODER_FIRST, Precision.INT8, 384, **_FAST),
    _predicted("bf16_model_offload", Mechanism.MODEL_OFFLOAD, Precision.BF16, 256),
    _predicted("bf16_group_block", Mechanism.GROUP_BLOCK, Precision.BF16, 256),
    _predicted("bf16_group_leaf", Mechanism.GROUP_LEAF, Precision.BF16, 256),
)
"""What was measured on a prototype or follows from it, and is not built into the worker yet."""
