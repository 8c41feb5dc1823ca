"""Stock diffusers as recipes, and a benchmark of any recipe by its name."""

from __future__ import annotations

from benchmarks.against_stock.records import Asked
from wan22core.errors import UnknownNameError
from wan22core.recipes import RECIPES, recipe
from wan22core.specs import WAN_ENGINE, WORKLOADS, BenchmarkSpec, Placement, Precision, Recipe, Tiling, Weights
from wan22core.targets import RecipeClass

_ENGINES = "benchmarks.against_stock.engines"


def _stock(name: str, **more: object) -> Recipe:
    """What the engines do, in the words of a recipe: the labels say it, and the tiles follow it."""
    return Recipe.model_validate(
        {
            "name": name,
            "recipe_class": RecipeClass.LOSSLESS,
            "transformer_precision": Precision.BF16,
            "text_encoder_precision": Precision.BF16,
            "vae_precision": Precision.BF16,
            **more,
        }
    )


_TUNED = {"attention_backend": "_native_cudnn"}
STOCK: dict[str, tuple[Recipe, str]] = {
    made.name: (made, f"{_ENGINES}:{engine}")
    for made, engine in (
        (_stock("stock_default", vae_precision=Precision.FP32), "StockDefault"),
        (_stock("stock_low_vram", placement=Placement.BLOCK_STREAM, vae_tiling=Tiling.DEFAULT), "StockLowVram"),
        (_stock("stock_tuned", vae_tiling=Tiling.DEFAULT, **_TUNED), "StockTuned"),
        (_stock("stock_tuned_whole", **_TUNED), "StockTuned"),
    )
}
"""Baselines by name, each with its engine. ``stock_tuned_whole`` decodes whole frames: faster, where they fit."""

DEFAULT_RECIPES = ("stock_default", "stock_low_vram", "stock_tuned", *RECIPES)
"""What is measured where nothing is named; ratios are against the first."""


def named(name: str) -> tuple[Recipe, str]:
    """The recipe and the engine called ``name``; ``UnknownNameError`` names those there are."""
    if name in STOCK:
        return STOCK[name]
    try:
        return recipe(name), WAN_ENGINE
    except UnknownNameError as error:
        baselines = ", ".join(sorted(STOCK))
        raise UnknownNameError(
            error.message, next_action=f"{error.next_action} The baselines are: {baselines}."
        ) from error


def spec_of(asked: Asked, name: str) -> BenchmarkSpec:
    """The benchmark of one measurement."""
    workload = WORKLOADS[asked.workload]
    if asked.steps != workload.steps:
        workload = workload.model_copy(update={"name": f"{workload.name}-{asked.steps}steps", "steps": asked.steps})
    made, engine = named(name)
    return BenchmarkSpec(
        workload=workload,
        weights=Weights(model=asked.model),
        recipe=made,
        engine=engine,
        repeats=asked.repeats,
        warmups=0,
        device=asked.device,
        vram_limit_mib=asked.vram_limit_mib,
    )
