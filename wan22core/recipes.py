"""Ready combinations: each recipe is one function that returns a complete ``Recipe``."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from wan22core.errors import UnknownNameError
from wan22core.specs import Loader, Placement, Precision, Recipe, Tiling
from wan22core.targets import RecipeClass

_CUDNN = "_native_cudnn"
_ENDS_UP_STREAMED = (Placement.BLOCK_STREAM,)


def reference() -> Recipe:
    """Stock diffusers' own behaviour, the yardstick: bf16, VAE in fp32, everything resident, no tiling."""
    return Recipe(
        name="reference",
        recipe_class=RecipeClass.LOSSLESS,
        transformer_precision=Precision.BF16,
        text_encoder_precision=Precision.BF16,
        vae_precision=Precision.FP32,
    )


def safe_12g() -> Recipe:
    """The target's 12 GiB: one large component on the card at a time, the transformer in fp8, the VAE in bf16 tiles.

    Where fp8 is missing int8 takes its place. The bf16 transformer that ends the chain is too large for 12 GiB: memory
    runs out, and its blocks are streamed.
    """
    return _lean(
        "safe_12g",
        Precision.FP8,
        fallbacks=(Precision.INT8, Precision.BF16),
        placement=Placement.ENCODE_THEN_FREE,
        placement_fallbacks=_ENDS_UP_STREAMED,
        attention_backend=_CUDNN,
    )


def low_8g() -> Recipe:
    """Cards of 8 GiB, without loss: bf16 blocks pass through the card, hidden behind its arithmetic on a fast bus."""
    return _lean("low_8g", Precision.BF16, placement=Placement.BLOCK_STREAM)


def low_6g() -> Recipe:
    """Cards of 6 GiB, which often sit on a narrow bus: int8 blocks are half the bytes, and the products are fast."""
    return _lean("low_6g", Precision.INT8, fallbacks=(Precision.BF16,), placement=Placement.BLOCK_STREAM)


def fast() -> Recipe:
    """All that a large card has, without loss: bf16, everything resident, cuDNN's attention, whole frames that fit."""
    return _lean("fast", Precision.BF16, **_all_of_the_card())


def fast_int8() -> Recipe:
    """The same with int8 products: on a GeForce four times the rate of bf16, on a data-centre card twice."""
    return _lean("fast_int8", Precision.INT8, fallbacks=(Precision.BF16,), **_all_of_the_card())


def fp16_accum() -> Recipe:
    """fp16 products with fp16 accumulation: twice bf16's rate on a GeForce, and no calibration; no gain elsewhere."""
    return _lean(
        "fp16_accum",
        Precision.FP16,
        fallbacks=(Precision.BF16,),
        fp16_accumulation=True,
        placement=Placement.ENCODE_THEN_FREE,
        placement_fallbacks=_ENDS_UP_STREAMED,
        attention_backend=_CUDNN,
    )


def _lean(name: str, transformer: Precision, **more: object) -> Recipe:
    """Direct loads, a bf16 VAE, frames in the largest tiles that fit."""
    is_lossless = transformer is Precision.BF16
    return Recipe.model_validate(
        {
            "name": name,
            "recipe_class": RecipeClass.LOSSLESS if is_lossless else RecipeClass.QUANTIZED,
            "transformer_precision": transformer,
            "text_encoder_precision": Precision.BF16,
            "vae_precision": Precision.BF16,
            "loader": Loader.DIRECT,
            "vae_tiling": Tiling.AUTO,
            **more,
        }
    )


def _all_of_the_card() -> dict[str, object]:
    return {
        "placement": Placement.RESIDENT,
        "placement_fallbacks": (Placement.ENCODE_THEN_FREE, Placement.BLOCK_STREAM),
        "attention_backend": _CUDNN,
    }


RECIPES: dict[str, Callable[[], Recipe]] = {
    make.__name__: make for make in (reference, safe_12g, low_8g, low_6g, fast, fast_int8, fp16_accum)
}


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; ``UnknownNameError`` names those there are."""
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise UnknownNameError(
            f"There is no recipe {name!r}.", next_action=f"{hint}The recipes are: {', '.join(sorted(RECIPES))}."
        )
    return RECIPES[name]()
