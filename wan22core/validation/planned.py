"""What planning says of a machine, as the checks ask for it."""

from __future__ import annotations

from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.gpu_specs import spec_of
from wan22core.planning import work
from wan22core.planning.configuration import Configuration, Mechanism
from wan22core.planning.host_settings import HostSettings, host_settings
from wan22core.planning.planner import Candidate, Plan, plan
from wan22core.records import CpuProfile, GpuProfile, MachineProfile
from wan22core.specs import WORKLOADS, Precision

TARGET_WORKLOAD = WORKLOADS["2s-720p"]
Card = tuple[GpuProfile, GpuSpec]
_MIB = 2**20


def card_of(machine: MachineProfile, name: str | None = None) -> Card | None:
    """The card of this name (of the table of cards), else the one with the most memory; None where none is known."""
    known = [(gpu, spec) for gpu in machine.gpus if gpu.state == "ok" and (spec := spec_of(gpu)) is not None]
    if name is not None:
        return next((each for each in known if each[1].name == name), None)
    return max(known, key=lambda each: each[0].vram_total_mib.value or 0, default=None)


def usable_cores(cpu: CpuProfile) -> int:
    """Physical cores that may be used; 0 where neither figure is known."""
    known = [reading.value for reading in (cpu.physical_cores, cpu.usable_cpus) if reading.value is not None]
    return int(min(known, default=0))


def settings_of(machine: MachineProfile, card: Card | None) -> HostSettings:
    """The host settings for a machine and one of its cards."""
    if card is None:
        return host_settings(machine.cpu, None, None)
    gpu, spec = card
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


def weights_floor_mib(configuration: Configuration) -> float:
    """The most weights that lie on the card at once, counted from the shapes alone: no peak can be below.

    The largest component where they take turns; of a streamed transformer what lies outside its blocks, and where
    blocks have slots of their own two of them.
    """
    transformer = work.transformer_bytes(configuration.transformer)
    text, vae = work.text_encoder_bytes(Precision.BF16), work.vae_bytes(configuration.vae)
    outside = work.outside_blocks_bytes()
    floors = {
        Mechanism.RESIDENT: transformer + text + vae,
        Mechanism.TEXT_ENCODER_FIRST: max(text, transformer + vae),
        Mechanism.MODEL_OFFLOAD: max(text, transformer, vae),
        Mechanism.BLOCK_STREAM: max(vae, outside + 2 * work.block_bytes(configuration.transformer)),
        Mechanism.GROUP_BLOCK: vae + outside,
        Mechanism.GROUP_LEAF: vae + outside,
    }
    return floors[configuration.mechanism] / _MIB
