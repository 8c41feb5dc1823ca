"""``nvidia-smi --query-gpu=... --format=csv``: any columns in any order, found by their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import Any

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, GpuFacts, reading

_COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("name", cells.name),
    "gpu_name": ("name", cells.name),
    "uuid": ("uuid", cells.name),
    "gpu_uuid": ("uuid", cells.name),
    "memory.total": ("vram_total_mib", cells.mib),
    "memory.used": ("vram_used_mib", cells.mib),
    "compute_cap": ("compute_capability", cells.capability),
    "driver_version": ("driver", cells.version),
    "power.limit": ("power_limit_w", cells.watts),
    "temperature.gpu": ("temperature_c", cells.celsius),
    "mig.mode.current": ("mig", cells.enabled),
    "ecc.mode.current": ("ecc_enabled", cells.enabled),
    "clocks.max.sm": ("max_sm_mhz", cells.mhz),
    "clocks.max.memory": ("max_memory_mhz", cells.mhz),
    "pcie.link.gen.max": ("pcie_generation", cells.whole),
    "pcie.link.width.max": ("pcie_width", cells.whole),
}


def read(file: str, text: str) -> Facts | None:
    """The table below the first line that names at least two columns of the tool."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        header = [re.sub(r"\s*\[.*\]$", "", column.strip()) for column in line.split(",")]
        if len(set(header) & (_COLUMNS.keys() | {"index"})) >= 2:
            return _table(file, header, lines[number + 1 :])
    return None


def _table(file: str, header: list[str], lines: list[str]) -> Facts:
    facts = Facts(gpu_vendor="nvidia")
    for row in csv.reader(lines, skipinitialspace=True, strict=False):
        if not row:
            break
        if len(row) != len(header):
            facts.notes.append(f"{file}: a line has {len(row)} cells under {len(header)} columns; it is not read.")
            continue
        by_column = dict(zip(header, row, strict=True))
        index = by_column.get("index", "").strip()
        gpu = GpuFacts(int(index) if cells.whole(index) is not None else None)
        for column, cell in by_column.items():
            if column in _COLUMNS:
                field, convert = _COLUMNS[column]
                gpu.fields[field] = reading(cell, file, convert)
        facts.gpus.append(gpu)
    return facts
