"""GPUs that can't be measured are seen and named all the same: AMD and Intel by Linux's files, Apple's by its chip."""

from __future__ import annotations

import platform
from pathlib import Path

from wan22core.hardware.system_files import HERE, read_text

_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}


def other_gpus(root: Path = HERE) -> list[tuple[str, str]]:
    """(vendor, what is known of it) of each display or compute device of a known vendor, in the kernel's order."""
    found: list[tuple[str, str]] = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        vendor = _VENDORS.get(read_text(card / "device/vendor"))
        if vendor is not None and "-" not in card.name:
            found.append((vendor, f"{vendor} GPU {read_text(card / 'device/device') or 'of unknown type'}"))
    if not found and root == HERE and platform.system() == "Darwin" and platform.machine() == "arm64":
        found.append(("apple", "Apple GPU"))
    return found
