"""The rules of advice that come with wan22, as data; ``docs/recommendations.md`` argues for each threshold."""

from __future__ import annotations

from wan22core.planning.configuration import Mechanism
from wan22core.planning.effect import ROOM
from wan22core.planning.rule import Change, Condition, Rule
from wan22core.planning.run_metrics import COMPUTES_IN_FP32
from wan22core.specs import Precision


def _flag(metric: str, *, on: bool) -> Condition:
    return Condition(metric=metric, comparison=">=" if on else "<=", threshold=float(on))


def _at_least(metric: str, threshold: float) -> Condition:
    return Condition(metric=metric, comparison=">=", threshold=threshold)


_ON_GPU, _ON_CPU = _flag("on_gpu", on=True), _flag("on_gpu", on=False)

_PLACES = {
    Mechanism.RESIDENT: "everything resident",
    Mechanism.TEXT_ENCODER_FIRST: "the text encoder first",
    Mechanism.MODEL_OFFLOAD: "one component on the card at a time",
    Mechanism.GROUP_BLOCK: "the transformer's blocks streamed",
    Mechanism.GROUP_LEAF: "the transformer's layers streamed",
}
_TILES = {"whole frames": None, "tiles of 704 pixels": 704, "tiles of 384 pixels": 384, "tiles of 256 pixels": 256}
_PLACEMENTS = tuple(
    Change(
        what=f"{where}, decoding {how}",
        fields={"mechanism": mechanism, "tile": None if side is None else (side, side, side - 64, side - 64)},
    )
    for mechanism, where in _PLACES.items()
    for how, side in _TILES.items()
)
"""Every way of using more of a card, or less."""

RULES: tuple[Rule, ...] = (
    Rule(
        id="tensor_cores_off",
        requires=(_ON_GPU, _flag("has_tf32", on=True), _at_least("fp32_component_share", COMPUTES_IN_FP32)),
        triggers=(
            Condition(
                metric="tf32_on",
                comparison="<",
                threshold=1,
                says="A component computes in fp32 and TF32 is off, although this card's tensor cores have it.",
            ),
        ),
        action="Allow TF32 for fp32 products and convolutions (--host-settings auto); what torch says is under tf32 in "
        "the report's environment.",
        measure="Run the same workload with TF32 and compare decode and generation; bf16 parts do not change.",
    ),
    Rule(
        id="precision_without_tensor_cores",
        requires=(_ON_GPU,),
        triggers=(
            Condition(
                metric="tensor_core_precision",
                comparison="<",
                threshold=1,
                says="The transformer runs in a precision that this card's tensor cores do not take.",
            ),
        ),
        action="Run the transformer in bf16, on cards before Ampere in fp16 (transformer_precision of the recipe).",
        measure="Run the same workload in 16 bit and compare the step's time and the memory.",
    ),
    Rule(
        id="faster_precision",
        requires=(_ON_GPU, _flag("tensor_core_precision", on=True)),
        triggers=(
            Condition(
                metric="faster_peak_ratio",
                comparison=">=",
                threshold=2,
                says="This card does int8 or fp16-accumulated products at {value:.3g} times the rate of the "
                "transformer's precision, and {threshold:g} times are worth a change.",
            ),
        ),
        action="Try the transformer's linears in int8, or in fp16 with fp16 accumulation, and check the quality.",
        changes=(
            Change(what="int8 linears", fields={"transformer": Precision.INT8}),
            Change(what="fp16 accumulation", fields={"transformer": Precision.FP16, "fp16_accumulation": True}),
        ),
        measure="Measure the step's time in both precisions, and the quality beside the reference.",
    ),
    Rule(
        id="vram_unused",
        requires=(_ON_GPU, Condition(metric="vram_device_share", comparison="<", threshold=ROOM)),
        triggers=(
            Condition(
                metric="vram_unused_share",
                comparison=">=",
                threshold=0.15,
                says="{value:.0%} of the card's memory was never used, {threshold:.0%} is kept free, and a faster "
                "placement fits.",
            ),
        ),
        action="Keep more of the model on the card, or decode in larger tiles or whole frames.",
        changes=_PLACEMENTS,
        least_gain=0.03,
        measure="Run the same workload with more of the model on the card and compare the generation's time.",
    ),
    Rule(
        id="vram_nearly_full",
        requires=(_ON_GPU,),
        triggers=(
            Condition(
                metric="vram_device_share",
                comparison=">=",
                threshold=ROOM,
                says="{value:.0%} of the card's memory was in use at the peak; {threshold:.0%} is where it gets tight.",
            ),
            Condition(
                metric="allocator_retries",
                comparison=">",
                threshold=0,
                says="{value:.0f} allocations of a stage succeeded only after the allocator's cache was flushed, where "
                "{threshold:.0f} should.",
            ),
        ),
        action="Hold less on the card: the next placement, or smaller tiles for the decode; end what else uses it.",
        changes=_PLACEMENTS,
        aim="memory",
        measure="Run the same workload with the next placement and compare peak memory and time.",
    ),
    Rule(
        id="gpu_waits",
        requires=(_ON_GPU, _flag("streams", on=False)),
        triggers=(
            Condition(
                metric="gpu_utilization_denoise",
                comparison="<",
                threshold=0.9,
                says="A kernel ran in {value:.0%} of the denoise; below {threshold:.0%} the GPU waits for the host.",
            ),
        ),
        action="Launch fewer, larger kernels (compile the transformer's blocks), and free the core that launches them.",
        changes=(Change(what="compiled blocks", fields={"compiled": True}),),
        measure="Look for another load on the host, then compare the step's time with compiled blocks.",
    ),
    Rule(
        id="cpu_underused",
        requires=(_ON_CPU, _at_least("threads", 2)),
        triggers=(
            Condition(
                metric="cores_busy_of_threads",
                comparison="<",
                threshold=0.7,
                says="{value:.0%} of torch's threads were busy during the denoise, less than {threshold:.0%}.",
            ),
        ),
        action="Look for what holds the threads back: an affinity, another load, the memory, too small a model.",
        measure="Run the same workload with half the threads: as fast means that they wait for memory or for work.",
    ),
    Rule(
        id="load_on_one_core",
        requires=(_ON_GPU, _at_least("usable_cores", 4), _at_least("cores_busy_load", 0.8)),
        triggers=(
            Condition(
                metric="cores_busy_load",
                comparison="<=",
                threshold=1.2,
                says="The load kept {value:.1f} cores busy, no more than {threshold:g}: one core is its limit.",
            ),
        ),
        action="Save the checkpoint in the precision that is run, so that nothing has to be cast, and run that folder.",
        measure="Compare load_s from that folder; loading is no part of the generation's time.",
    ),
    Rule(
        id="numa_unbound",
        requires=(_ON_GPU,),
        triggers=(
            Condition(
                metric="numa_nodes_used",
                comparison=">=",
                threshold=2,
                says="The worker may run on {value:.0f} NUMA nodes, not on one: its memory may be another node's.",
            ),
            Condition(
                metric="far_from_gpu",
                comparison=">=",
                threshold=1,
                says="The worker runs on a NUMA node that is not the GPU's.",
            ),
        ),
        action="Bind the run to the GPU's node N: numactl --cpunodebind=N --membind=N wan22 benchmark ...",
        measure="Compare the load and the step's time, bound and not; both copy over the bus.",
    ),
    Rule(
        id="decode_serial",
        requires=(_ON_CPU, _at_least("threads", 4), _at_least("decode_share", 0.1)),
        triggers=(
            Condition(
                metric="cores_busy_decode",
                comparison="<=",
                threshold=1.2,
                says="The decode kept {value:.1f} cores busy, no more than {threshold:g}: it runs on one core.",
            ),
        ),
        action="Decode on several threads: see that nothing sets one thread for it, and give it larger tiles.",
        measure="Compare decode's time with more threads; it can save no more than its share of the generation.",
    ),
    Rule(
        id="write_serial",
        requires=(_at_least("usable_cores", 4), _at_least("write_share", 0.1)),
        triggers=(
            Condition(
                metric="cores_busy_write",
                comparison="<=",
                threshold=1.2,
                says="Writing the video kept {value:.1f} cores busy, no more than {threshold:g}: it runs on one core.",
            ),
        ),
        action="Encode the video on several threads or with the GPU's encoder, or while the next one is denoised.",
        measure="Compare write's time; it can save no more than its share of the generation.",
    ),
    Rule(
        id="cores_idle",
        requires=(
            _ON_CPU,
            _at_least("cores_busy_of_threads", 0.7),
            Condition(metric="threads_of_planned", comparison="<", threshold=1),
        ),
        triggers=(
            Condition(
                metric="threads_of_cores",
                comparison="<",
                threshold=0.5,
                says="torch has busy threads for {value:.0%} of the usable cores, less than {threshold:.0%}.",
            ),
        ),
        action="Give torch more threads: leave out --threads and OMP_NUM_THREADS, or raise them.",
        measure="Run the same workload with more threads and compare the generation's time.",
    ),
)
