"""What a run says about itself, as named figures that the rules of advice ask for. Pure.

Every figure is there, as a value or as None with the reason. Only measured repeats and stages that ended well count,
warm-ups never do: times and loads are medians over the repeats, peaks the highest of them. A flag is 1 or 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from wan22core.hardware.gpu_spec import GpuSpec, Operation
from wan22core.hardware.gpu_specs import spec_of
from wan22core.hardware.readings import known
from wan22core.planning.configuration import STREAMED, Configuration
from wan22core.planning.host_settings import host_settings
from wan22core.records import Reading, RepeatKind, RunRecord, Sample, Stage, StageRecord, StageStatus
from wan22core.statistics import summarize, time_weighted_mean

SETTLE_S = 1.0
"""Left out at the start of a stage: what NVML calls utilisation is about up to a second before it is read, and a
process's processor time about the time since the sample before."""

COMPUTES_IN_FP32 = 0.5
"""Share of fp32 in a component's bytes; below it these are norms and tables, which any 16-bit model keeps in fp32."""

METRICS: dict[str, str] = {
    "on_gpu": "1 on a CUDA device, 0 on the CPU",
    "usable_cores": "physical cores, or what affinity and quota leave of them",
    "threads": "torch's threads within an operation, as torch said",
    "threads_of_cores": "threads by usable cores",
    "threads_of_planned": "threads by those that planning chooses for these processors",
    "numa_nodes_used": "NUMA nodes that have processors on which the worker may run",
    "far_from_gpu": "1 when none of those nodes is the GPU's",
    "has_tf32": "1 when the card's tensor cores take fp32 products as TF32",
    "tf32_on": "1 when TF32 is in force for all components that compute in fp32, 0 when not for one of them",
    "fp32_component_share": "the largest share of fp32 in the bytes of one component",
    "tensor_core_precision": "1 when the card's tensor cores take the transformer's precision",
    "faster_peak_ratio": "the card's peak in int8 or in fp16 accumulation, by that of the transformer's precision",
    "vram_unused_share": "share of the physical card that the process never held",
    "vram_device_share": "highest use of the physical card, all processes together",
    "allocator_retries": "allocations that succeeded only after the allocator's cache was flushed",
    "streams": "1 when the transformer's blocks come over the bus in every step, 0 when they stay on the device",
    "decode_share": "share of the generation's time that decoding takes",
    "write_share": "share of the generation's time that writing the video takes",
    "gpu_utilization_denoise": "share of the denoise in which any kernel ran",
    "cores_busy_load": "cores that the worker kept busy while it loaded",
    "cores_busy_denoise": "cores that it kept busy during the denoise",
    "cores_busy_decode": "cores that it kept busy during the decode",
    "cores_busy_write": "cores that it kept busy while it wrote the video",
    "cores_busy_of_threads": "cores busy during the denoise, by threads",
}
"""Every figure and what it is."""

Metrics = dict[str, Reading[float]]
_ON_CPU = "the run uses no GPU"
_OPERATIONS: dict[str, Operation | None] = {
    "bfloat16": "bf16_fp32",
    "float16": "fp16_fp32",
    "int8": "int8_int32",
    "float8_e4m3fn": "fp8_fp32",
    "float32": None,
}
"""The product that a transformer of a torch dtype is made of; the table of cards has no rate for fp32."""


def measured_metrics(record: RunRecord, samples: Sequence[Sample]) -> Metrics:
    """All of ``METRICS`` for one run."""
    found = _host(record) | _numa(record) | _precision(record) | _memory(record)
    found |= {f"{stage.value}_share": _share(record, stage) for stage in (Stage.DECODE, Stage.WRITE)}
    found["gpu_utilization_denoise"] = _mean(record, samples, Stage.DENOISE, "gpu_utilization_percent")
    for stage in (Stage.LOAD, Stage.DENOISE, Stage.DECODE, Stage.WRITE):
        found[f"cores_busy_{stage.value}"] = _mean(record, samples, stage, "cpu_percent")
    found["cores_busy_of_threads"] = _ratio(found["cores_busy_denoise"], found["threads"])
    return found


def gpu_spec_of(record: RunRecord) -> Reading[GpuSpec]:
    """What the run's card can do at most."""
    if record.labels.device == "cpu":
        return known(None, "labels", _ON_CPU)
    gpu = record.hardware.gpu_of(record.labels.device)
    if gpu is None:
        return known(None, "detection", f"no GPU was detected behind {record.labels.device}")
    return known(spec_of(gpu), "gpu_specs", f"the peaks of {gpu.name.value or 'this card'} are not known")


def _host(record: RunRecord) -> Metrics:
    cpu, said = record.hardware.cpu, record.environment.get("threads")
    physical, usable = cpu.physical_cores.value, cpu.usable_cpus.value
    cores = known(
        None if physical is None or usable is None else min(float(physical), usable),
        "detection",
        cpu.physical_cores.reason or cpu.usable_cpus.reason or "",
    )
    threads = known(None if said is None else float(said), "torch", "torch did not say how many threads it uses")
    planned = None if cores.value is None else float(host_settings(cpu, None, None).threads)
    return {
        "on_gpu": known(float(record.labels.device != "cpu"), "labels", ""),
        "streams": known(float(Configuration.of(record.spec.recipe).mechanism in STREAMED), "recipe", ""),
        "usable_cores": cores,
        "threads": threads,
        "threads_of_cores": _ratio(threads, cores),
        "threads_of_planned": _ratio(threads, known(planned, "planning", cores.reason or "")),
    }


def _numa(record: RunRecord) -> Metrics:
    nodes, gpu = _nodes_used(record), record.hardware.gpu_of(record.labels.device)
    far, reason = None, nodes.reason or _ON_CPU
    if nodes.value is not None and gpu is not None:
        reason = gpu.numa_node.reason or ""
        far = None if gpu.numa_node.value is None else float(gpu.numa_node.value not in nodes.value)
    used = None if nodes.value is None else float(len(nodes.value))
    return {
        "numa_nodes_used": known(used, nodes.source, nodes.reason or ""),
        "far_from_gpu": known(far, nodes.source, reason),
    }


def _nodes_used(record: RunRecord) -> Reading[list[int]]:
    """The nodes of the CPUs that the worker was bound to, read back; unbound it has those that the detection had."""
    nodes, allowed = record.hardware.cpu.numa_cpus, record.hardware.cpu.affinity
    if any(setting.name == "numa_node" for setting in record.settings):
        said = _read_back(record, "numa_node") or ""
        cpus = [int(cpu) for cpu in re.findall(r"\d+", said)] if said.startswith("CPUs ") else None
        allowed = known(cpus, "settings", "the binding was not read back")
    if nodes.value is None or allowed.value is None:
        return known(None, allowed.source, nodes.reason or allowed.reason or "")
    used = [node for node, own in nodes.value.items() if not set(own).isdisjoint(allowed.value)]
    return known(used, allowed.source, "")


def _precision(record: RunRecord) -> Metrics:
    spec = gpu_spec_of(record)
    shares = _fp32_shares(record)
    has_tf32 = None if spec.value is None else float(spec.value.generation.has_bf16)  # both came with Ampere
    return {
        "has_tf32": known(has_tf32, spec.source, spec.reason or ""),
        "tf32_on": _tf32_on(record),
        "fp32_component_share": known(max(shares.values(), default=None), "census", "no component was counted"),
        **_transformer(record, spec),
    }


def _fp32_shares(record: RunRecord) -> dict[str, float]:
    return {
        part.component: part.bytes_by_dtype.get("float32", 0) / sum(part.bytes_by_dtype.values())
        for part in record.census
        if part.bytes_by_dtype
    }


def _tf32_on(record: RunRecord) -> Reading[float]:
    """torch has two switches: the VAE is made of convolutions, the transformer and the text encoder of products.

    The few products of the VAE's attention are left out.
    """
    said = record.environment.get("tf32")
    computing = [name for name, share in _fp32_shares(record).items() if share >= COMPUTES_IN_FP32]
    if said is None or not computing:
        return known(None, "torch", "torch did not say it" if said is None else "no component computes in fp32")
    kinds = {"convolutions" if name == "vae" else "products" for name in computing}
    return known(float(all(said == "on" or f"{kind} on" in said for kind in kinds)), "torch", "")


def _transformer(record: RunRecord, spec: Reading[GpuSpec]) -> Metrics:
    """How well the card's tensor cores are used by the precision that the transformer really has."""
    dtype = record.labels.precision_actual
    reason = spec.reason or (f"the transformer's precision is {dtype}" if dtype else "the transformer was not counted")
    if spec.value is None or dtype not in _OPERATIONS:
        return {name: known(None, spec.source, reason) for name in ("tensor_core_precision", "faster_peak_ratio")}
    operation = _OPERATIONS[dtype]
    accumulates = _read_back(record, "fp16_accumulation") if operation == "fp16_fp32" else "off"
    peak = spec.value.peak_flop_s("fp16_fp16" if accumulates == "on" else operation) if operation else None
    others = [spec.value.peak_flop_s("fp16_fp16"), spec.value.peak_flop_s("int8_int32")]
    ratio = max(each for each in others if each is not None) / peak if peak and accumulates is not None else None
    why = "the accumulator of fp16 products was not read back" if accumulates is None else "there is no rate for it"
    return {
        "tensor_core_precision": known(float(peak is not None), "gpu_specs", ""),
        "faster_peak_ratio": known(ratio, "gpu_specs", why),
    }


def _memory(record: RunRecord) -> Metrics:
    """Peaks cover the load too: a process that peaked while loading has peaked."""
    gpu = record.hardware.gpu_of(record.labels.device)
    total = gpu.vram_total_mib.value if gpu is not None else None
    measured = [row for row in record.repeats if row.kind is RepeatKind.MEASURED]
    held = summarize([row.memory_efficiency for row in measured]).maximum
    device_mib = summarize([row.peak_device_mib for row in measured]).maximum
    retries = summarize([s.allocator_retries for s in record.stages if s.kind is RepeatKind.MEASURED])
    used = device_mib / total if device_mib is not None and total else None
    missing = _ON_CPU if record.labels.device == "cpu" else "no measured repeat has it"
    return {
        "vram_unused_share": known(None if held is None else 1 - held, "repeats", missing),
        "vram_device_share": known(used, "repeats", missing),
        "allocator_retries": known(retries.maximum, "stages", missing),
    }


def _share(record: RunRecord, stage: Stage) -> Reading[float]:
    """Part of a repeat's generation that one stage takes."""
    walls_s = {each.repeat: each.wall_s for each in _ended(record, stage)}
    shares = [
        wall_s / row.generation_s
        for row in record.repeats
        if row.kind is RepeatKind.MEASURED and row.generation_s and (wall_s := walls_s.get(row.repeat)) is not None
    ]
    return known(summarize(shares).median, "stages", f"no measured repeat has a whole {stage.value}")


def _mean(
    record: RunRecord,
    samples: Sequence[Sample],
    stage: Stage,
    field: Literal["cpu_percent", "gpu_utilization_percent"],
) -> Reading[float]:
    """A sampled percentage over a stage as a number of whole ones: 150 % of a core are 1.5 cores."""
    means = []
    for each in _ended(record, stage):
        if each.started_s is None or each.ended_s is None:
            continue
        inside = [sample for sample in samples if each.started_s + SETTLE_S <= sample.t_s <= each.ended_s]
        means.append(time_weighted_mean([s.t_s for s in inside], [getattr(s, field) for s in inside]))
    percent = summarize(means).median
    reason = f"{field} was not sampled twice in a measured {stage.value} after its first second"
    return known(None if percent is None else percent / 100, "samples", reason)


def _ended(record: RunRecord, stage: Stage) -> list[StageRecord]:
    """The whole stages that count: of the measured repeats, for a load those of every worker."""
    kind = RepeatKind.SETUP if stage is Stage.LOAD else RepeatKind.MEASURED
    return [
        each
        for each in record.stages
        if each.stage is stage and each.kind is kind and each.component is None and each.status is StageStatus.OK
    ]


def _read_back(record: RunRecord, name: str) -> str | None:
    return next((setting.read_back for setting in record.settings if setting.name == name), None)


def _ratio(part: Reading[float], whole: Reading[float]) -> Reading[float]:
    if part.value is None or whole.value is None:
        return known(None, part.source, part.reason or whole.reason or "")
    return known(part.value / whole.value if whole.value else None, part.source, f"{whole.source} counts none")
