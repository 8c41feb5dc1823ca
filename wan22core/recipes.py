"""Ready combinations: each recipe is one function that returns a complete ``Recipe``."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from wan22core.errors import UnknownNameError
from wan22core.specs import Precision, Recipe
from wan22core.targets import RecipeClass


def reference() -> Recipe:
    """Stock diffusers' own behaviour, the yardstick: bf16, VAE in fp32, everything resident, no tiling."""
    return Recipe(
        name="reference",
        recipe_class=RecipeClass.LOSSLESS,
        transformer_precision=Precision.BF16,
        text_encoder_precision=Precision.BF16,
        vae_precision=Precision.FP32,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"reference": reference}


def recipe(name: str) -> Recipe:
    """The recipe called ``name``; ``UnknownNameError`` names those there are."""
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise UnknownNameError(
            f"There is no recipe {name!r}.", next_action=f"{hint}The recipes are: {', '.join(sorted(RECIPES))}."
        )
    return RECIPES[name]()
