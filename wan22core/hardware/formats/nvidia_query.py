"""``nvidia-smi -q``: the indented text."""

from __future__ import annotations

import re

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, GpuFacts, reading
from wan22core.records import MigInstance

_MARK = "NVSMI LOG"
_GPU = re.compile(r"^GPU ([0-9A-Fa-f]+:[0-9A-Fa-f]+:\S+)\s*$")
_LINE = re.compile(r"^(\s*)(\S.*?)\s*(?::\s(.*)|:)?$")

Path = tuple[str, ...]
_POWER_LIMITS: tuple[Path, ...] = (
    ("GPU Power Readings", "Current Power Limit"),
    ("GPU Power Readings", "Power Limit"),
    ("Power Readings", "Current Power Limit"),
    ("Power Readings", "Power Limit"),
)
_LINK = ("PCI", "GPU Link Info")


def read(file: str, text: str) -> Facts | None:
    """The GPUs of the log, each by the headings that a line stands under: several blocks have a ``Total``."""
    if _MARK not in text:
        return None
    top, blocks = _blocks(text)
    facts = Facts(gpu_vendor="nvidia")
    for position, block in enumerate(blocks):
        first: dict[Path, str] = {}
        for path, value in block:
            first.setdefault(path, value)
        facts.gpus.append(GpuFacts(position, _fields(file, top, first)))
        facts.mig_instances += [
            MigInstance(gpu=position, memory_mib=reading(value, file, cells.mib))
            for path, value in block
            if path[0] == "MIG Device"
            and path[1:] in (("Shared FB Memory Usage", "Total"), ("FB Memory Usage", "Total"))
        ]
    attached = top.get("Attached GPUs", "")
    if attached.isdigit() and int(attached) != len(blocks):
        facts.notes.append(f"{file}: {attached} GPUs are attached, {len(blocks)} are in the log.")
    return facts


def _blocks(text: str) -> tuple[dict[str, str], list[list[tuple[Path, str]]]]:
    """The lines above the first GPU, and each GPU's lines as (headings, value)."""
    top: dict[str, str] = {}
    blocks: list[list[tuple[Path, str]]] = []
    headings: list[tuple[int, str]] = []
    for line in text.splitlines():
        if _GPU.match(line):
            blocks.append([])
            headings = []
            continue
        match = _LINE.match(line)
        if match is None:
            continue
        indent, name, value = len(match[1]), match[2], match[3]
        headings = [heading for heading in headings if heading[0] < indent]
        if value is None:
            headings.append((indent, name))
        elif not blocks:
            top.setdefault(name, value.strip())
        else:
            blocks[-1].append(((*(heading for _, heading in headings), name), value.strip()))
    return top, blocks


def _fields(file: str, top: dict[str, str], lines: dict[Path, str]) -> Fields:
    limit = next((lines[path] for path in _POWER_LIMITS if path in lines), None)
    return {
        "name": reading(lines.get(("Product Name",)), file, cells.name),
        "uuid": reading(lines.get(("GPU UUID",)), file, cells.name),
        "vram_total_mib": reading(lines.get(("FB Memory Usage", "Total")), file, cells.mib),
        "vram_used_mib": reading(lines.get(("FB Memory Usage", "Used")), file, cells.mib),
        "driver": reading(top.get("KMD Version") or top.get("Driver Version"), file, cells.version),
        "cuda": reading(top.get("CUDA UMD Version") or top.get("CUDA Version"), file, cells.version),
        "power_limit_w": reading(limit, file, cells.watts),
        "temperature_c": reading(lines.get(("Temperature", "GPU Current Temp")), file, cells.celsius),
        "mig": reading(lines.get(("MIG Mode", "Current")), file, cells.enabled),
        "ecc_enabled": reading(
            lines.get(("ECC Mode", "Current"), lines.get(("Ecc Mode", "Current"))), file, cells.enabled
        ),
        "max_sm_mhz": reading(lines.get(("Max Clocks", "SM")), file, cells.mhz),
        "max_memory_mhz": reading(lines.get(("Max Clocks", "Memory")), file, cells.mhz),
        "pcie_generation": reading(lines.get((*_LINK, "PCIe Generation", "Max")), file, cells.whole),
        "pcie_width": reading(_lanes(lines.get((*_LINK, "Link Width", "Max"))), file, cells.whole),
    }


def _lanes(cell: str | None) -> str | None:
    """``16x``."""
    return cell.removesuffix("x") if cell is not None else None
