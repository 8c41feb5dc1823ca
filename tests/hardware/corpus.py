"""A corpus of real machines' dumps, named by ``WAN22_DUMP_CORPUS``: a folder a machine, with the facts to be read.

``python -m tests.hardware.corpus`` prints what disagrees and what is not returned.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan22core.errors import UserInputError
from wan22core.hardware.snapshot import read_snapshot
from wan22core.records import GpuProfile, MachineProfile, Reading

CORPUS = os.environ.get("WAN22_DUMP_CORPUS")
OURS = {"mig_enabled": "mig"}
HALF_A_WATT = 0.5


@dataclass(frozen=True)
class Fact:
    """One fact of one machine, and what we returned for it."""

    machine: str
    key: str
    expected: Any
    returned: Any
    reason: str | None

    @property
    def disagrees(self) -> bool:
        if self.key.endswith(("errors", "state", "gpu_vendor")) or self.expected is None:
            return self.returned is not None and self.returned != self.expected
        return self.returned is not None and not _same(self.key, self.expected, self.returned)

    @property
    def missing(self) -> bool:
        return self.expected is not None and self.returned is None


def machines(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/expected.json"))


def facts_of(machine: Path) -> Iterator[Fact]:
    """The facts of a machine's ``expected.json`` beside ours."""
    expected = json.loads((machine / "expected.json").read_text())
    try:
        profile: MachineProfile | None = read_snapshot(machine)
    except UserInputError:
        profile = None

    def fact(key: str, value: Any, reading: Reading[Any] | None) -> Fact:
        returned, reason = (reading.value, reading.reason) if reading is not None else (None, "no such entry")
        return Fact(machine.name, key, value, returned, reason)

    for part in ("cpu", "memory"):
        for name, value in expected.get(part, {}).items():
            yield fact(f"{part}.{name}", value, getattr(getattr(profile, part, None), name, None))
    for position, gpu in enumerate(expected.get("gpus", [])):
        ours = _gpu(profile, gpu.get("index", position))
        for name, value in gpu.items():
            yield _gpu_fact(machine.name, f"gpus[{position}].{name}", name, value, ours)
    for position, instance in enumerate(expected.get("mig_instances", [])):
        found = profile.mig_instances[position] if profile and position < len(profile.mig_instances) else None
        yield fact(f"mig[{position}]", instance["memory_mib"], found.memory_mib if found else None)
    if "gpu_vendor" in expected:
        yield fact("gpu_vendor", expected["gpu_vendor"], profile.gpu_vendor if profile else None)
    if "errors" in expected:
        errors = sorted(profile.errors) if profile else None
        yield Fact(machine.name, "errors", sorted(expected["errors"]), errors, None)


def _gpu(profile: MachineProfile | None, index: int) -> GpuProfile | None:
    return next((gpu for gpu in profile.gpus if gpu.index == index), None) if profile else None


def _gpu_fact(machine: str, key: str, name: str, value: Any, gpu: GpuProfile | None) -> Fact:
    if gpu is None:
        return Fact(machine, key, value, None, "no such GPU")
    if name in ("index", "state"):
        return Fact(machine, key, value, getattr(gpu, name), None)
    reading = gpu.name if name == "name_prefix" else getattr(gpu, OURS.get(name, name))
    return Fact(machine, key, value, reading.value, reading.reason)


def _same(key: str, expected: Any, returned: Any) -> bool:
    if key.endswith("name_prefix"):
        return str(returned).startswith(expected)
    if key.endswith("power_limit_w"):
        return abs(float(returned) - float(expected)) <= HALF_A_WATT
    if isinstance(expected, str):
        return " ".join(expected.split()) == " ".join(str(returned).split())
    return bool(expected == returned)


if __name__ == "__main__":
    all_facts = [
        fact
        for machine in machines(Path(sys.argv[1] if len(sys.argv) > 1 else str(CORPUS)))
        for fact in facts_of(machine)
    ]
    for each in all_facts:
        if each.disagrees or each.missing:
            print("DISAGREES" if each.disagrees else "missing", each)
    wrong, absent = sum(fact.disagrees for fact in all_facts), sum(fact.missing for fact in all_facts)
    print(f"{len(all_facts)} facts: {wrong} disagree, {absent} not returned")
