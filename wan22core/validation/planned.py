"""What planning says of a machine, as the checks ask for it."""

from __future__ import annotations

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import spec_of
from wan22core.planning.host_settings import HostSettings, host_settings
from wan22core.planning.planner import Candidate, Plan, plan
from wan22core.records import GpuProfile, MachineProfile
from wan22core.specs import WORKLOADS

TARGET_WORKLOAD = WORKLOADS["2s-720p"]


def card_of(machine: MachineProfile, name: str | None = None) -> tuple[GpuProfile, GpuSpec] | None:
    """The card of this name (of the table of cards), else the one with the most memory; None where none is known."""
    known = [(gpu, spec) for gpu in machine.gpus if gpu.state == "ok" and (spec := spec_of(gpu)) is not None]
    if name is not None:
        return next((each for each in known if each[1].name == name), None)
    return max(known, key=lambda each: each[0].vram_total_mib.value or 0, default=None)


def settings_of(machine: MachineProfile) -> HostSettings:
    """The host settings for a machine and its largest card."""
    found = card_of(machine)
    if found is None:
        return host_settings(machine.cpu, None, None)
    gpu, spec = found
    return host_settings(machine.cpu, spec, gpu.vram_total_mib.value, gpu_node=gpu.numa_node.value)


def target_plan(gpu: GpuProfile, spec: GpuSpec) -> Plan:
    """The target workload on a card, beside what others hold of it."""
    total_mib = gpu.vram_total_mib.value or spec.vram_gib * 1024
    return plan(spec, float(total_mib), TARGET_WORKLOAD, used_mib=float(gpu.vram_used_mib.value or 0))


def offered(result: Plan) -> list[Candidate]:
    """The exact configurations that a plan says fit, the fastest first; what it recommends is among them."""
    usable = (each for each in result.candidates if each.fits and each.exact and each.generation is not None)
    return sorted(usable, key=lambda each: each.generation.mid if each.generation is not None else 0.0)


def highest_mib(candidate: Candidate) -> float:
    """The highest predicted process peak of all stages."""
    return max(peak.process_mib for peak in candidate.peaks.values())
