"""Recipes beside stock diffusers, alternating in one run, through the session alone: it needs only torch.

Usage: python benchmarks/gpu.py [RECIPE ...] [--model ti2v-5b] [--workload 2s-720p] [--steps N] [--rounds N]
                                [--vram-limit-mib N] [--device D] [--budget-s S] [--cold] [--ceilings] [--out FILE]
       python benchmarks/gpu.py --bars FILE [FILE ...]

Each measurement is a fresh process that makes one video, or more with --repeats. A round measures every recipe once;
every other round goes backwards, so that a drift meets all of them. What was measured is a line of FILE at once: the
same command goes on from there. Prints a Markdown table with ratios against the first recipe; exits 4 when a run broke,
5 when its memory readings are out of order, 3 when the page cache can't be made cold. --bars measures nothing: it
judges what FILEs hold by the bars of the project, and exits 1 when one does not hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.against_stock.baselines import DEFAULT_RECIPES, STOCK, named
from wan22core.recipes import RECIPES
from wan22core.specs import WORKLOADS


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises ``UnknownNameError`` for a recipe that there is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join([*STOCK, *RECIPES])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {names}; all but one where none is given")
    parser.add_argument("--model", default="ti2v-5b")
    parser.add_argument("--workload", default="2s-720p", choices=sorted(WORKLOADS))
    parser.add_argument("--steps", type=positive, help="fewer than the workload has: times are scaled, and it says so")
    parser.add_argument("--repeats", type=positive, default=1, help="videos in one process")
    parser.add_argument("--rounds", type=positive, default=6)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--vram-limit-mib", type=int, help="an emulated ceiling; each ceiling has a file of its own")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="no measurement that would end later")
    parser.add_argument("--cold", action="store_true", help="empty the page cache of the checkpoint's files each time")
    parser.add_argument("--ceilings", action="store_true", help="measure the device's sustained rates first, once")
    parser.add_argument("--bars", type=Path, nargs="+", metavar="FILE", help="judge what these files hold")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    options = parser.parse_args(arguments)
    options.recipes = options.recipes or list(DEFAULT_RECIPES)
    for name in options.recipes:
        named(name)
    options.steps = options.steps or WORKLOADS[options.workload].steps
    return options


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number
