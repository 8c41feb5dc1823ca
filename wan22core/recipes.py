"""Ready combinations: each recipe is one function that returns a complete ``Recipe``."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from wan22core.errors import UnknownNameError
from wan22core.specs import AUTO_ATTENTION, CacheMethod, Loader, Placement, Precision, Recipe, StepCache, Tiling
from wan22core.targets import RecipeClass

_GIB = 1024
"""MiB. A recipe that is named by a card's memory keeps to it on a larger card as well: tiles are chosen by it."""
_ONE_AT_A_TIME = {"placement": Placement.ENCODE_THEN_FREE, "placement_fallbacks": (Placement.BLOCK_STREAM,)}


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
        **_ONE_AT_A_TIME,
        vram_budget_mib=12 * _GIB,
    )


def lossless_16g() -> Recipe:
    """Cards of 16 GiB, without loss: the bf16 transformer alone on the card while it computes."""
    return _lean("lossless_16g", Precision.BF16, **_ONE_AT_A_TIME, vram_budget_mib=16 * _GIB)


def low_8g() -> Recipe:
    """Cards of 8 GiB, without loss: bf16 blocks pass through the card, hidden behind its arithmetic on a fast bus."""
    return _lean("low_8g", Precision.BF16, placement=Placement.BLOCK_STREAM, vram_budget_mib=8 * _GIB)


def low_6g() -> Recipe:
    """Cards of 6 GiB, which often sit on a narrow bus: int8 blocks are half the bytes, and the products are fast."""
    return _lean(
        "low_6g",
        Precision.INT8,
        fallbacks=(Precision.BF16,),
        placement=Placement.BLOCK_STREAM,
        vram_budget_mib=6 * _GIB,
    )


def low_4g() -> Recipe:
    """``low_6g`` within 4 GiB, frames in small tiles; half of it is the text encoder's embedding table."""
    return low_6g().model_copy(update={"name": "low_4g", "vram_budget_mib": 4 * _GIB})


def fast() -> Recipe:
    """All that a large card has, without loss: bf16, everything resident, whole frames where they fit."""
    return _lean(
        "fast",
        Precision.BF16,
        placement=Placement.RESIDENT,
        placement_fallbacks=(Placement.ENCODE_THEN_FREE, Placement.BLOCK_STREAM),
    )


def fast_int8() -> Recipe:
    """int8 products within the target's 12 GiB: on a GeForce four times the rate of bf16, elsewhere twice.

    One large component on the card at a time; on a larger card that costs one copy a video, a fraction of a second.
    """
    return _lean(
        "fast_int8",
        Precision.INT8,
        fallbacks=(Precision.BF16,),
        **_ONE_AT_A_TIME,
        vram_budget_mib=12 * _GIB,
    )


def fp16_accum() -> Recipe:
    """fp16 products with fp16 accumulation: twice bf16's rate on a GeForce, and no calibration; no gain elsewhere."""
    return _lean(
        "fp16_accum",
        Precision.FP16,
        fallbacks=(Precision.BF16,),
        fp16_accumulation=True,
        **_ONE_AT_A_TIME,
    )


def mag_cache() -> Recipe:
    """``fast_int8`` that computes half of 50 steps, the same ones for every content: approximate, judged by no gate.

    0.06, two in a row and the first fifth are what MagCache's authors publish for this model; on an L20 it took 5 min
    24 s instead of 10 min 39 s.
    """
    return _cached("mag_cache", StepCache(method=CacheMethod.MAGNITUDE, threshold=0.06))


def first_block_cache() -> Recipe:
    """``fast_int8`` that computes a step where the first block says that it differs: approximate, as ``mag_cache``.

    0.05 is diffusers' own threshold.
    """
    return _cached("first_block_cache", StepCache(method=CacheMethod.FIRST_BLOCK, threshold=0.05))


def with_text_encoder(asked: Recipe, precision: Precision) -> Recipe:
    """A recipe whose text encoder is in another precision, under a name of its own."""
    if precision is asked.text_encoder_precision:
        return asked
    quantizes = precision in (Precision.INT8, Precision.FP8) and asked.recipe_class is RecipeClass.LOSSLESS
    return asked.model_copy(
        update={
            "name": f"{asked.name}_text_{precision.value}",
            "text_encoder_precision": precision,
            "recipe_class": RecipeClass.QUANTIZED if quantizes else asked.recipe_class,
        }
    )


def _cached(name: str, cache: StepCache) -> Recipe:
    changes = {"name": name, "recipe_class": RecipeClass.APPROXIMATE, "step_cache": cache}
    return fast_int8().model_copy(update=changes)


def _lean(name: str, transformer: Precision, **more: object) -> Recipe:
    """Direct loads, the fastest attention, compiled blocks, a bf16 VAE, frames in the largest tiles that fit."""
    is_lossless = transformer is Precision.BF16
    return Recipe.model_validate(
        {
            "name": name,
            "recipe_class": RecipeClass.LOSSLESS if is_lossless else RecipeClass.QUANTIZED,
            "transformer_precision": transformer,
            "text_encoder_precision": Precision.BF16,
            "vae_precision": Precision.BF16,
            "loader": Loader.DIRECT,
            "attention_backend": AUTO_ATTENTION,
            "distinct_timesteps": True,
            "compiled": True,
            "vae_tiling": Tiling.AUTO,
            **more,
        }
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    make.__name__: make
    for make in (
        reference,
        safe_12g,
        lossless_16g,
        low_8g,
        low_6g,
        low_4g,
        fast,
        fast_int8,
        fp16_accum,
        mag_cache,
        first_block_cache,
    )
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
