"""Runs to give advice on: quiet ones, and for each rule one that fires it beside a neighbour that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from tests.builders import make_labels, make_repeats, make_run_record, make_spec, make_stages
from tests.hardware.machines import processors
from wan22core.hardware.formats.facts import Facts, GpuFacts
from wan22core.hardware.merge import gpus_of
from wan22core.planning.run_metrics import SETTLE_S
from wan22core.records import (
    AppliedSetting,
    Census,
    Reading,
    RepeatKind,
    RunRecord,
    Sample,
    Stage,
    StageRecord,
)
from wan22core.specs import Placement, Tiling

Run = tuple[RunRecord, list[Sample]]
TURING = ("NVIDIA GeForce RTX 2080 Ti", "7.5", 11_264)
H100, RTX_4080 = ("NVIDIA H100 80GB HBM3", "9.0", 81_559), ("NVIDIA GeForce RTX 4080", "8.9", 16_376)
CORES = 16
BUSY = {Stage.LOAD: 3.0, Stage.DENOISE: 7.6, Stage.DECODE: 7.6, Stage.WRITE: 4.0}
MIXED = Census(component="vae", parameters=1, bytes_by_dtype={"float32": 9, "bfloat16": 1}, devices=["cuda:0"])


@cache
def judged(cuda: bool) -> RunRecord:
    """Judging takes a second, and the advice does not ask for it."""
    return make_run_record(cuda=cuda)


def reading(value: Any) -> Reading[Any]:
    return Reading(value=value, source="test")


def samples_of(stages: Sequence[StageRecord], busy: Mapping[Stage, float], gpu: float | None) -> list[Sample]:
    """Ten a second; a warm-up, and the first second of a stage, show what would fire every rule."""
    found = []
    for each in stages:
        assert each.started_s is not None
        for tenth in range(20):
            settled = each.kind is not RepeatKind.WARMUP and tenth >= 10 * SETTLE_S
            cores = busy.get(each.stage, 1.0) if settled else 1.0
            use = None if gpu is None else 100 * gpu if settled else 10.0
            t_s = each.started_s + tenth / 10
            found.append(Sample(t_s=t_s, cpu_percent=100 * cores, gpu_utilization_percent=use))
    return found


def run(
    *,
    card: tuple[str, str, int] | None = H100,
    precision: str | None = "int8",
    busy: Mapping[Stage, float] = MappingProxyType({}),
    gpu: float = 0.99,
    threads: int = 8,
    affinity: Sequence[int] = range(CORES),
    gpu_node: int = 0,
    held: float = 0.6,
    device_mib: float = 12_000,
    retries: int = 0,
    tiled: bool = False,
    streamed: bool = False,
    seconds: float = 1.9,
    **more: Any,
) -> Run:
    """A run that gives no cause for advice: a GPU run in int8 with its host at ease, or without a card one on a CPU.

    The machine has two nodes of eight cores; the worker may run on the first one's CPUs, all 16 of them.
    """
    cuda = card is not None
    plain = judged(cuda)
    nodes = reading({0: list(range(CORES)), 1: list(range(CORES, 2 * CORES))})
    cpu = processors(CORES, nodes=2).model_copy(update={"numa_cpus": nodes, "affinity": reading(list(affinity))})
    stages = [
        each.model_copy(update={"allocator_retries": retries, "wall_s": seconds}) for each in make_stages(cuda=cuda)
    ]
    memory = {"memory_efficiency": held, "peak_device_mib": device_mib} if cuda else {}
    spec = make_spec(cuda=cuda)
    tiling = Tiling.DEFAULT if tiled else Tiling.OFF
    placement = Placement.BLOCK_STREAM if streamed else Placement.RESIDENT
    placed = {"vae_tiling": tiling, "placement": placement}
    changes: dict[str, Any] = {
        "hardware": plain.hardware.model_copy(update={"cpu": cpu, "gpus": [_gpu(card, gpu_node)] if card else []}),
        "labels": make_labels(cuda=cuda, precision_actual=precision),
        "environment": {"threads": str(threads)},
        "stages": stages,
        "repeats": [each.model_copy(update=memory) for each in make_repeats(cuda=cuda)],
        "spec": spec.model_copy(update={"recipe": spec.recipe.model_copy(update=placed)}),
    }
    return plain.model_copy(update=changes | more), samples_of(stages, {**BUSY, **busy}, gpu if cuda else None)


def _gpu(card: tuple[str, str, int], node: int) -> Any:
    name, capability, vram_mib = card
    said = {"name": name, "compute_capability": capability, "vram_total_mib": vram_mib, "vram_used_mib": 500}
    fields = {field: reading(value) for field, value in said.items()}
    (profile,), _ = gpus_of([Facts(gpus=[GpuFacts(0, fields)])])
    return profile.model_copy(update={"torch_index": reading(0), "numa_node": reading(node)})


def setting(name: str, read_back: str | None) -> AppliedSetting:
    return AppliedSetting(name=name, asked="on", read_back=read_back, held=read_back == "on")


def tf32(said: str | None, component: str = "vae") -> Run:
    """A run whose one fp32 component is this one, and what torch says of TF32, the host as it is (``stock``)."""
    census = [MIXED.model_copy(update={"component": component})]
    return run(census=census, environment={"threads": "8", "tf32": said})


CASES: dict[str, tuple[str, Callable[[], Run], Callable[[], Run]]] = {
    "TF32 off": ("tensor_cores_off", lambda: tf32("off"), lambda: tf32("on")),
    "TF32 off, nothing in fp32": (
        "tensor_cores_off",
        lambda: tf32("off"),
        lambda: run(
            census=[MIXED.model_copy(update={"bytes_by_dtype": {"bfloat16": 9, "float32": 1}})],
            environment={"threads": "8", "tf32": "off"},
        ),
    ),
    "torch's own TF32, products in fp32": (
        "tensor_cores_off",
        lambda: tf32("products off, convolutions on", "text_encoder"),
        lambda: tf32("products off, convolutions on", "vae"),
    ),
    "convolutions without TF32": (
        "tensor_cores_off",
        lambda: tf32("products on, convolutions off", "vae"),
        lambda: tf32("products on, convolutions off", "text_encoder"),
    ),
    "fp32": ("precision_without_tensor_cores", lambda: run(precision="float32"), run),
    "bf16 on Turing": (
        "precision_without_tensor_cores",
        lambda: run(card=TURING, precision="bfloat16", device_mib=6_000),
        lambda: run(card=TURING, device_mib=6_000),
    ),
    "int8 is faster": ("faster_precision", lambda: run(precision="bfloat16"), run),
    "fp16, accumulated in fp32": (
        "faster_precision",
        lambda: run(card=RTX_4080, precision="float16", settings=[setting("fp16_accumulation", "off")]),
        lambda: run(
            card=("Tesla V100-SXM2-32GB", "7.0", 32_768),
            precision="float16",
            settings=[setting("fp16_accumulation", "on")],
        ),
    ),
    "tiles on a large card": ("vram_unused", lambda: run(tiled=True), lambda: run(tiled=True, held=0.9)),
    "nothing faster fits": ("vram_unused", lambda: run(tiled=True), lambda: run(tiled=False)),
    "full card": ("vram_nearly_full", lambda: run(device_mib=80_000), lambda: run(device_mib=70_000)),
    "retries": ("vram_nearly_full", lambda: run(retries=2), run),
    "GPU idles": ("gpu_waits", lambda: run(gpu=0.8), lambda: run(gpu=0.95)),
    "GPU idles beside the bus": (
        "gpu_waits",
        lambda: run(gpu=0.8, held=0.9),
        lambda: run(gpu=0.8, held=0.9, streamed=True),
    ),
    "threads idle": (
        "cpu_underused",
        lambda: run(card=None, busy={Stage.DENOISE: 1.0}),
        lambda: run(card=None, busy={Stage.DENOISE: 6.0}),
    ),
    "load on one core": (
        "load_on_one_core",
        lambda: run(busy={Stage.LOAD: 1.0}),
        lambda: run(busy={Stage.LOAD: 0.3}),
    ),
    "two nodes": ("numa_unbound", lambda: run(affinity=range(2 * CORES)), run),
    "the other node": ("numa_unbound", lambda: run(gpu_node=1), run),
    "bound to the other node": (
        "numa_unbound",
        lambda: run(settings=[setting("numa_node", "CPUs 16,17")]),
        lambda: run(affinity=range(2 * CORES), settings=[setting("numa_node", "CPUs 0,1")]),
    ),
    "serial decode": (
        "decode_serial",
        lambda: run(card=None, busy={Stage.DECODE: 1.0}),
        lambda: run(card=None, busy={Stage.DECODE: 1.0}, seconds=0.2),
    ),
    "serial write": ("write_serial", lambda: run(busy={Stage.WRITE: 1.0}), lambda: run(busy={Stage.WRITE: 1.5})),
    "few threads": (
        "cores_idle",
        lambda: run(card=None, threads=4, busy={Stage.DENOISE: 3.9}),
        lambda: run(card=None, threads=8),
    ),
}
