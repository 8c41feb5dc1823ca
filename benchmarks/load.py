"""The direct loader beside stock ``from_pretrained(...).to(device)``, in alternating pairs: warm, cold, and the floor.

Usage: python benchmarks/load.py CHECKPOINT [--device cuda:0] [--precision bf16] [--budget-s 120] [--pairs 7]
Loads transformer, text encoder and VAE (in fp32 unless --vae-precision says other) and prints a Markdown table. The
floor is one thread's reading the same files from start to end, in large pieces. Pairs that the budget has no room for
are left out and counted. Make the checkpoint with: wan22 weights make ti2v-5b
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.utils.logging import disable_progress_bar
from transformers.utils import logging as transformers_logging

from wan22core import page_cache
from wan22core.model.layout import weight_files
from wan22core.model.loader import MODULES, load_component
from wan22core.recipes import recipe
from wan22core.specs import WORKLOADS, BenchmarkSpec, Loader, Precision
from wan22core.statistics import ratio_of_medians, summarize

GB = 1e9


def main() -> int:
    asked = arguments()
    device = torch.device(asked.device)
    files = [file for name in MODULES for file in weight_files(asked.checkpoint / name)]
    size = sum(file.stat().st_size for file in files)
    until = time.monotonic() + asked.budget_s
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    print(f"{asked.checkpoint.name}, {size / GB:.2f} GB, {asked.precision}, {name}, torch {torch.__version__}\n")
    print("| page cache | what | median s | min - max | GB/s | pairs |")
    print("|---|---|---|---|---|---|")
    states = {"warm": lambda: warm(files), "cold": lambda: cold(files)}
    for number, (state, make) in enumerate(states.items()):
        if (reason := make()) is not None:
            print(f"| {state} | not measured: {reason} | | | | |")
            continue
        share_ends = until - asked.budget_s * (len(states) - number - 1) / len(states)
        measure(state, make, asked, device, files, size, share_ends)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32", "none"], default="bf16")
    parser.add_argument("--vae-precision", choices=["bf16", "fp16", "fp32", "none"], default="fp32")
    parser.add_argument("--budget-s", type=float, default=120)
    parser.add_argument("--pairs", type=int, default=7)
    return parser.parse_args()


def measure(
    state: str,
    make: Callable[[], str | None],
    asked: argparse.Namespace,
    device: torch.device,
    files: list[Path],
    size: int,
    until: float,
) -> None:
    """One row for each loader and one for the floor; which loader is first alternates, so that a drift meets both."""
    seconds: dict[str, list[float]] = {loader.value: [] for loader in Loader} | {"floor": []}
    if state == "warm":  # imports, kernels and pinned memory are not the load's
        for loader in Loader:
            load_s(loader, asked, device)
    while len(seconds["floor"]) < asked.pairs and (not seconds["floor"] or time.monotonic() < until):
        order = list(Loader)[:: 1 if len(seconds["floor"]) % 2 else -1]
        for loader in order:
            brought(state, make)
            seconds[loader.value].append(load_s(loader, asked, device))
        brought(state, make)
        began = time.perf_counter()
        page_cache.fill(files)
        seconds["floor"].append(time.perf_counter() - began)
    for what, label in (("stock", "stock"), ("direct", "direct"), ("floor", "floor: one sequential read")):
        found = summarize(seconds[what])
        assert found.median is not None
        span = f"{found.minimum:.3f} - {found.maximum:.3f}"
        print(f"| {state} | {label} | {found.median:.3f} | {span} | {size / GB / found.median:.2f} | {found.n} |")
    if len(seconds["floor"]) >= 2:
        for over, under in (("stock", "direct"), ("direct", "floor")):
            ratio = ratio_of_medians(seconds[over], seconds[under])
            print(f"| {state} | {over} / {under} | {ratio.mid:.2f}x | {ratio.low:.2f} - {ratio.high:.2f} | | |")


def load_s(loader: Loader, asked: argparse.Namespace, device: torch.device) -> float:
    """Seconds until all components are on the device, synchronised; their memory is given back afterwards."""
    changes = {
        "loader": loader,
        "transformer_precision": Precision(asked.precision),
        "text_encoder_precision": Precision(asked.precision),
        "vae_precision": Precision(asked.vae_precision),
    }
    spec = BenchmarkSpec(workload=WORKLOADS["smoke"], recipe=recipe("reference").model_copy(update=changes))
    began = time.perf_counter()
    modules = [load_component(name, asked.checkpoint, spec, device) for name in MODULES]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took_s = time.perf_counter() - began
    del modules
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return took_s


def brought(state: str, make: Callable[[], str | None]) -> None:
    """No time is taken of files that are not as the row says."""
    if (reason := make()) is not None:
        sys.exit(f"The page cache can't be kept {state} any more: {reason}. Close what else uses the files.")


def warm(files: list[Path]) -> str | None:
    page_cache.fill(files)
    found = page_cache.cached(files)
    return None if found.state == "warm" else found.reason or f"the cache holds {found.fraction:.0%} of the files"


def cold(files: list[Path]) -> str | None:
    return next((reason for reason in map(page_cache.empty, files) if reason is not None), None)


if __name__ == "__main__":
    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    sys.exit(main())
