"""Several sources about one machine become one profile: the most trusted value counts, contradictions are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from wan22core.hardware.formats.facts import Facts, Fields, GpuFacts
from wan22core.hardware.readings import known
from wan22core.records import CpuProfile, GpuProfile, MachineProfile, MemoryProfile, Reading

TOLERANCE = 0.02
TOLERANCE_MIB = 400
"""Sources that disagree on a memory by more than max(2 %, 400 MiB) are told."""

_GPU_FIELDS = tuple(name for name in GpuProfile.model_fields if name not in ("index", "state"))
_IDENTITY = ("name", "driver", "cuda", "compute_capability", "vram_total_mib")
_UNSAID = Reading[Any].missing("snapshot", "no source says it")
_LOST = Reading[Any].missing("snapshot", "the GPU fell off the bus")


def machine_of(facts: Sequence[Facts], notes: Iterable[str] = ()) -> MachineProfile:
    """One profile from sources in the order of trust."""
    cpu, memory = [each.cpu for each in facts], [each.memory for each in facts]
    gpus, contradictions = gpus_of(facts)
    vendors = [each.gpu_vendor for each in facts if each.gpu_vendor is not None]
    errors = list(dict.fromkeys(code for each in facts for code in each.errors))
    reason = f"the sources say: {', '.join(errors)}" if errors else "no source lists a GPU"
    mig = next((each.mig_instances for each in facts if each.mig_instances), [])
    return MachineProfile(
        cpu=_cpu(cpu),
        memory=MemoryProfile(
            total_mib=first_of(memory, "total_mib"),
            available_mib=first_of(memory, "available_mib"),
            limit_mib=first_of(memory, "limit_mib"),
        ),
        gpus=gpus,
        gpu_vendor=known(vendors[0] if vendors else None, "snapshot", reason),
        gpu_reason=None if gpus else reason,
        mig_instances=mig,
        errors=errors,
        notes=[*notes, *(note for each in facts for note in each.notes), *contradictions],
    )


def first_of(sources: Sequence[Fields], name: str) -> Reading[Any]:
    """The first value; without one the first reason."""
    said = [fields[name] for fields in sources if name in fields]
    return next((each for each in said if each.value is not None), said[0] if said else _UNSAID)


def gpus_of(facts: Sequence[Facts]) -> tuple[list[GpuProfile], list[str]]:
    """One profile a GPU, matched by index, by position where a source gives none; and where sources disagree."""
    by_index: dict[int, list[GpuFacts]] = {}
    for each in facts:
        for position, gpu in enumerate(each.gpus):
            by_index.setdefault(position if gpu.index is None else gpu.index, []).append(gpu)
    found, contradictions = [], []
    for index, parts in sorted(by_index.items()):
        sources = [part.fields for part in parts]
        lost = any(part.lost for part in parts)
        fields = {name: first_of(sources, name) for name in _GPU_FIELDS}
        if lost:
            fields = {name: _LOST if reading is _UNSAID else reading for name, reading in fields.items()}
        found.append(GpuProfile(index=index, state="lost" if lost else "ok", **fields))
        contradictions += [
            f"GPU {index}: {name} is {fields[name].value} by {fields[name].source}, {other.value} by {other.source}."
            for name in _IDENTITY
            for other in _others(sources, name)
            if _disagree(name, fields[name].value, other.value)
        ]
    return found, contradictions


def _others(sources: Sequence[Fields], name: str) -> list[Reading[Any]]:
    said = [fields[name] for fields in sources if name in fields and fields[name].value is not None]
    return said[1:]


def _disagree(name: str, first: Any, other: Any) -> bool:
    if name == "vram_total_mib":
        return bool(abs(first - other) > max(TOLERANCE * first, TOLERANCE_MIB))
    if name == "name":  # a table cuts long names
        return not str(first).startswith(str(other).removesuffix("...").strip())
    return bool(first != other)


def _cpu(sources: Sequence[Fields]) -> CpuProfile:
    logical, quota = first_of(sources, "logical_cpus"), first_of(sources, "cgroup_quota_cpus")
    affinity = first_of(sources, "affinity_cpus")
    return CpuProfile(
        model=first_of(sources, "model"),
        physical_cores=first_of(sources, "physical_cores"),
        logical_cpus=logical,
        usable_cpus=_usable(logical, affinity, quota),
        sockets=first_of(sources, "sockets"),
        numa_nodes=first_of(sources, "numa_nodes"),
        numa_cpus=first_of(sources, "numa_cpus"),
        affinity=_UNSAID,
        cgroup_quota_cpus=quota,
    )


def _usable(logical: Reading[int], affinity: Reading[int], quota: Reading[float]) -> Reading[float]:
    """Settled by an affinity or a quota only: a machine's CPUs alone don't say what a process may use of them."""
    limits = [each for each in (affinity, quota) if each.value is not None]
    if not limits:
        return Reading[float].missing("snapshot", "no source gives an affinity or a quota")
    smallest = min(
        [*limits, *([logical] if logical.value is not None else [])], key=lambda each: float(each.value or 0)
    )
    return Reading[float](value=float(smallest.value or 0), source=smallest.source)
