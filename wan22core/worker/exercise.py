"""Jobs that put a real load on the machine, for validation: processors, device memory, precisions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from wan22core.errors import UnsupportedQuantizationError
from wan22core.planning.host_settings import HostSettings
from wan22core.records import Progress
from wan22core.specs import BenchmarkSpec
from wan22core.worker.device_memory import device_memory
from wan22core.worker.engine import Report, build_engine
from wan22core.worker.host import set_threads
from wan22core.worker.host_settings import applied

_SIDE = 1024
"""Three fp32 matrices of 4 MiB: a product's time is its arithmetic, not the memory's."""
_WARM_UP_S = 0.3
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
"""What psutil calls the time in which a CPU does something, as far as the system has it."""
_BLOCK_MIB = 64
_MIB = 2**20


def processor_load_job(threads: list[int], seconds: float, rounds: int, report: Report) -> dict[str, Any]:
    """fp32 matrix products for ``seconds`` under each number of threads in turn, ``rounds`` times over.

    One row each: the threads that torch then said it uses, the CPUs that they may run on, the cores that this process
    kept busy, those that others used of the same CPUs (None where the system does not count them), products by second.
    """
    rows: list[dict[str, Any]] = []
    turns = threads * rounds
    for number, asked in enumerate(turns):
        report(Progress(stage="load", fraction=number / len(turns)))
        used = set_threads(asked)
        _multiply(_WARM_UP_S)
        rows.append({"threads": used, **_measured(seconds)})
    return {"rows": rows}


def _measured(seconds: float) -> dict[str, Any]:
    cpus = _cpus() or list(range(psutil.cpu_count() or 1))
    all_before, own_before = _busy_s(cpus), _own_busy_s()
    began = time.perf_counter()
    products = _multiply(seconds)
    wall_s = time.perf_counter() - began
    all_after, own_s = _busy_s(cpus), _own_busy_s() - own_before
    others_s = None if all_before is None or all_after is None else max(0.0, all_after - all_before - own_s)
    return {
        "cpus": cpus,
        "busy_cores": own_s / wall_s,
        "others_cores": None if others_s is None else others_s / wall_s,
        "products_s": products / wall_s,
    }


def _multiply(seconds: float) -> int:
    import torch

    left, right = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    until, products = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        torch.mm(left, right)
        products += 1
    return products


def _cpus() -> list[int] | None:
    """The CPUs of the thread that puts up the load; None where the system binds none."""
    return sorted(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else None


def _own_busy_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def _busy_s(cpus: list[int]) -> float | None:
    """Seconds that these CPUs were busy, whoever used them; None where one of them is not counted.

    A hypervisor's ``steal`` is another's use; ``guest`` is part of ``user``.
    """
    counted = psutil.cpu_times(percpu=True)
    if max(cpus) >= len(counted):  # psutil leaves out those that are offline, and numbers the others anew
        return None
    return sum(getattr(counted[cpu], kind, 0.0) for cpu in cpus for kind in _BUSY)


def settings_job(settings: list[dict[str, Any]], report: Report) -> dict[str, Any]:
    """Applies each of these host settings in turn: the table, and what torch and the system say before, in, after."""
    del report  # there is no progress to tell
    rows: list[dict[str, Any]] = []
    for each in settings:
        before = _state()
        with applied(HostSettings.model_validate(each)) as table:
            inside = _state()
            shown = [setting.model_dump(mode="json") for setting in table]
        rows.append({"applied": shown, "before": before, "inside": inside, "after": _state()})
    return {"rows": rows}


def _state() -> dict[str, Any]:
    """What can be put back of a process, read without the code that applies it."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "convolutions_tf32": torch.backends.cudnn.allow_tf32,
        "fp16_accumulation": torch.backends.cuda.matmul.allow_fp16_accumulation,
        "cpus": _cpus(),
    }


def main_memory_job(mib: float, report: Report) -> dict[str, Any]:
    """Takes and touches so much main memory."""
    del report
    import numpy as np

    process = psutil.Process()
    before = process.memory_info().rss
    block = np.ones(int(mib * _MIB), dtype=np.uint8)
    resident = process.memory_info().rss
    del block
    return {"taken_mib": (resident - before) / _MIB, "resident_mib": resident / _MIB}


def fill_device_job(device: str, ceiling_mib: int, report: Report) -> dict[str, Any]:
    """Allocates blocks under an emulated ceiling until one is refused, or twice the ceiling was handed out."""
    del report
    import torch

    memory = device_memory(device)
    free_mib = torch.cuda.mem_get_info(device)[0] / _MIB
    memory.limit(ceiling_mib)
    memory.begin()
    blocks: list[torch.Tensor] = []
    refused = False
    while not refused and len(blocks) * _BLOCK_MIB < 2 * ceiling_mib:
        try:
            blocks.append(torch.empty(_BLOCK_MIB * _MIB, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            refused = True
    return {
        "refused": refused,
        "free_before_mib": free_mib,
        "allocated_mib": len(blocks) * _BLOCK_MIB,
        "peak_process_mib": memory.end().peak_process_mib,
    }


def precisions_job(specs: list[dict[str, Any]], checkpoint: str, device: str, report: Report) -> dict[str, Any]:
    """Loads and quantizes as each spec asks, from the files each time; the census of it, or the refusal."""
    rows: list[dict[str, Any]] = []
    for each in specs:
        spec = BenchmarkSpec.model_validate(each)
        engine = build_engine(spec, Path(checkpoint), device)
        engine.load(report)
        try:
            engine.quantize(spec.recipe.transformer_precision, report)
        except UnsupportedQuantizationError as error:
            rows.append({"refused": error.message, "census": None})
        else:
            rows.append({"refused": None, "census": [part.model_dump(mode="json") for part in engine.census()]})
    return {"rows": rows}
