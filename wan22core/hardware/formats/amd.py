"""AMD's tools: ``rocm-smi -a --json`` and ``rocminfo``."""

from __future__ import annotations

import json
import re
from typing import Any

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, GpuFacts, kib_as_mib, reading
from wan22core.records import Reading

_NAMES = ("card series", "card model", "device name")
_AGENT = re.compile(r"^Agent \d+\s*$", re.MULTILINE)
_POOL = re.compile(r"Segment:\s+GLOBAL; FLAGS: COARSE GRAINED\s+Size:\s+(\d{1,15})\(")


def read_rocm_smi(file: str, text: str) -> Facts | None:
    """One object a card; the driver stands in an object of its own. Newer versions write their keys otherwise."""
    if '"card0"' not in text:
        return None
    try:
        document: dict[str, Any] = json.loads(text)
        cards = {key: _lower(card) for key, card in document.items() if re.fullmatch(r"card\d{1,3}", key)}
        driver = _lower(document.get("system") or {}).get("driver version")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Facts(gpu_vendor="amd", notes=[f"{file}: the JSON of rocm-smi can't be read."])
    gpus = [
        GpuFacts(int(key.removeprefix("card")), {**_card(file, card), "driver": reading(driver, file, cells.version)})
        for key, card in cards.items()
    ]
    return Facts(gpus=gpus, gpu_vendor="amd")


def _lower(entries: dict[str, Any]) -> dict[str, str]:
    return {str(key).lower(): str(value) for key, value in entries.items()}


def _card(file: str, card: dict[str, str]) -> Fields:
    named = (card.get(name) for name in _NAMES)
    name = next((text for text in named if text and not text.startswith("0x") and text != "N/A"), None)
    size = card.get("vram total memory (b)", "")
    vram = Reading[int].missing(file, "it does not say")
    if cells.whole(size) is not None:
        vram = Reading[int](value=int(size) // 2**20, source=f"{file}: {size} bytes")
    return {
        "name": reading(name, file, cells.name),
        "vram_total_mib": vram,
        "power_limit_w": reading(card.get("max graphics package power (w)"), file, cells.watts),
    }


def read_rocminfo(file: str, text: str) -> Facts | None:
    """Agents that are GPUs, with the size of their largest pool; the CPU is an agent too."""
    if "HSA Agents" not in text:
        return None
    facts = Facts()
    for agent in _AGENT.split(text)[1:]:
        name = re.search(r"^\s+Marketing Name:[ \t]*(\S.*?)\s*$", agent, re.MULTILINE)
        kind = re.search(r"^\s+Device Type:\s+(\S+)", agent, re.MULTILINE)
        if kind is None:
            continue
        if kind[1] == "CPU" and "model" not in facts.cpu:
            facts.cpu["model"] = reading(name[1] if name else None, file, cells.name)
        if kind[1] == "GPU":
            pool = _POOL.search(agent)
            vram = kib_as_mib(pool[1], "pool", file) if pool else Reading[int].missing(file, "no pool is listed")
            named = reading(name[1] if name else None, file, cells.name)
            facts.gpus.append(GpuFacts(None, {"name": named, "vram_total_mib": vram}))
    facts.gpu_vendor = "amd" if facts.gpus else None
    return facts
