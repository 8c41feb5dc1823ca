"""macOS: ``system_profiler SPHardwareDataType`` and ``sysctl``."""

from __future__ import annotations

import re

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, reading
from wan22core.records import Reading

_MARKS = ("Hardware Overview:", "machdep.cpu.brand_string:")
_CHIP = re.compile(r"^\s*(?:Chip|Processor Name|machdep\.cpu\.brand_string): (.+)$", re.MULTILINE)
_CORES = re.compile(r"^\s*(?:Total Number of Cores|hw\.physicalcpu): (\d+)", re.MULTILINE)
_LOGICAL = re.compile(r"^\s*hw\.logicalcpu: (\d+)", re.MULTILINE)
_MEMORY = re.compile(r"^\s*Memory: (\d{1,6}) GB", re.MULTILINE)
_BYTES = re.compile(r"^\s*hw\.memsize: (\d{1,18})", re.MULTILINE)


def read(file: str, text: str) -> Facts | None:
    """Chip, cores and memory (binary GB). A chip's GPU shares the main memory: it is named, and has no VRAM."""
    if not any(mark in text for mark in _MARKS):
        return None
    chip = _CHIP.search(text)
    facts = Facts(cpu={"model": reading(chip[1] if chip else None, file, cells.name)})
    for field, pattern in (("physical_cores", _CORES), ("logical_cpus", _LOGICAL)):
        if (match := pattern.search(text)) is not None:
            facts.cpu[field] = reading(match[1], file, cells.whole)
    if (size := _MEMORY.search(text)) is not None:
        facts.memory["total_mib"] = Reading[int](value=int(size[1]) * 1024, source=f"{file}: {size[1]} GB")
    elif (size := _BYTES.search(text)) is not None:
        facts.memory["total_mib"] = Reading[int](value=int(size[1]) // 2**20, source=f"{file}: {size[1]} bytes")
    facts.gpu_vendor = "apple" if chip is not None and chip[1].startswith("Apple") else None
    return facts
