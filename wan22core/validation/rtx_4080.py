"""An RTX 4080: on the machine that has one, else from a snapshot of one and under an emulated ceiling of its size.

The expected settings and limits are those of the original description's validation (12.2).
"""

from __future__ import annotations

from functools import partial

from wan22core.errors import UnknownNameError
from wan22core.hardware.gpu_spec import GpuSpec
from wan22core.hardware.nvml import full_uuid
from wan22core.history.store import HistoryStore
from wan22core.planning.planner import SAFETY, Candidate
from wan22core.records import AlertLevel, GpuProfile, MachineProfile, RunRecord, RunState, Sample, VerdictValue
from wan22core.session.locks import DeviceLock
from wan22core.targets import Severity
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.thresholds import ActionKind
from wan22core.validation import rtx_4080_quantization as quantization
from wan22core.validation.case import Case
from wan22core.validation.context import packaged
from wan22core.validation.expectations import at_least, below, between, equal, one_of, true
from wan22core.validation.planned import TARGET_WORKLOAD, card_of, highest_mib, offered, settings_of, target_plan
from wan22core.validation.registry import Check

_NAME = "GeForce RTX 4080"
_SNAPSHOT = "synthetic_rtx-4080"
_SIZE_MIB = 16_384
_REPORTED = (0.985, 1.0)
"""A card reports a little less than its nominal size: an RTX 4080 says 16,376 MiB."""
_FILLED = 0.85
"""Share of what was free that must have been handed out before the refusal: the context takes some 600 MiB of it."""
_ASKED_RUNS = 200
_USE_PERCENT = (*range(80, 97), *range(95, 79, -1), *(12 * [80]))
"""Use of the card second by second in a trace made by hand: past every threshold, back, and calm."""


def _subject(case: Case) -> tuple[MachineProfile, GpuProfile, GpuSpec]:
    """The machine that is validated where it has the card, else the packaged snapshot."""
    context = case.context
    found = card_of(context.machine, _NAME)
    machine, name = (context.machine, context.machine_name) if found is not None else packaged(_SNAPSHOT)
    case.look_at(name, complete=found is None)
    gpu, spec = found or _required(machine)
    return machine, gpu, spec


def _required(machine: MachineProfile) -> tuple[GpuProfile, GpuSpec]:
    """The detection of the snapshot is a check itself: without it there is nothing else to check."""
    found = card_of(machine, _NAME)
    if found is None:
        raise UnknownNameError(
            f"The detection finds no {_NAME} in the packaged snapshot {_SNAPSHOT}.",
            next_action="Look at wan22 hardware --from that folder.",
        )
    return found


def _detection(case: Case) -> None:
    machine, gpu, spec = _subject(case)
    case.expect("name", equal(f"NVIDIA {_NAME}"), gpu.name)
    case.expect("memory, MiB", between(_REPORTED[0] * _SIZE_MIB, _REPORTED[1] * _SIZE_MIB), gpu.vram_total_mib)
    case.expect("compute capability", equal("8.9"), gpu.compute_capability)
    case.expect("vendor", equal("nvidia"), machine.gpu_vendor)
    case.expect("generation of the table", equal("Ada"), spec.generation.name)
    case.fact("driver", gpu.driver)


def _settings(case: Case) -> None:
    machine, gpu, spec = _subject(case)
    found = settings_of(machine)
    case.expect("working precision", equal("bf16"), found.working_precision)
    case.expect("TF32 on tensor cores", equal(True), found.tf32)
    case.expect("VAE tile, pixels", at_least(512), found.vae_tile)
    case.expect("memory fraction", at_least(0.85), found.memory_fraction)
    case.expect("batch", at_least(1), found.batch)
    attention = next((each.configuration.attention for each in offered(target_plan(gpu, spec))), None)
    case.expect("attention of the fastest exact configuration that fits", one_of(["cudnn"]), attention)


def _vram_plan(case: Case) -> None:
    _, gpu, spec = _subject(case)
    result = target_plan(gpu, spec)
    found = offered(result)
    case.expect("exact configurations that fit", at_least(1), len(found))
    for each in found:
        limit = below(result.limit_mib)
        case.expect(f"peak of {each.configuration.name} with its safety, MiB", limit, highest_mib(each) * SAFETY)
    refused = [each for each in result.candidates if not each.fits and each.runs]
    for each in refused:
        peak = highest_mib(each) * SAFETY
        case.expect(f"{each.configuration.name} is refused for its peak, MiB", at_least(result.limit_mib), peak)
    case.fact("recommended of this version", result.recommended)
    case.fact("fastest that is predicted", found[0].configuration.name if found else None)


def _vram_action(case: Case) -> None:
    """The health monitor on a trace of the card's memory: at 90 % the next placement is advised, once."""
    _, gpu, _ = _subject(case)
    case.look_at("a synthetic trace of the use of its memory")
    total_mib = float(gpu.vram_total_mib.value or _SIZE_MIB)
    monitor = HealthMonitor(vram_total_mib=total_mib, on_cpu=False)
    acted: list[tuple[ActionKind, int]] = []
    for second, percent in enumerate(_USE_PERCENT):
        sample = Sample(t_s=second, gpu_device_mib=total_mib * (percent + 0.5) / 100)
        acted += [(action.kind, percent) for action in monitor.observe(sample)]
    case.expect("actions", equal(ActionKind.ADVISE_NEXT_PLACEMENT.value), ", ".join(kind for kind, _ in acted))
    case.expect("use at the first action, %", equal(90), acted[0][1] if acted else None)
    alerts = monitor.alerts
    case.expect("alerts", equal(1), len(alerts))
    for alert in alerts:
        case.expect("its worst level", equal(AlertLevel.CRITICAL.value), alert.level.value)
        case.expect("resolved at the end", at_least(alert.opened_s), alert.resolved_s)


def _vram_allocations(case: Case) -> None:
    facts = case.context.torch
    if not facts.devices:
        case.not_measured(f"no CUDA device here: {facts.reason}", "Run it on a machine with an NVIDIA card.")
    device = facts.devices[0]
    ceiling_mib = min(_SIZE_MIB, device.total_mib)
    emulated = f"{device.name} under an emulated ceiling of {ceiling_mib} MiB"
    case.look_at(device.name if device.total_mib <= _SIZE_MIB else emulated)
    lock = DeviceLock(case.context.settings.locks_path)
    if device.uuid is not None:
        lock.acquire(full_uuid(device.uuid))
    try:
        arguments = {"device": f"cuda:{device.index}", "ceiling_mib": ceiling_mib}
        found = case.job("wan22core.worker.exercise:fill_device_job", arguments)
    finally:
        lock.release()
    usable_mib = min(ceiling_mib, found["free_before_mib"])
    case.expect("an allocation is refused", equal(True), found["refused"])
    case.expect("handed out before the refusal, MiB", at_least(_FILLED * usable_mib), found["allocated_mib"])
    case.expect("peak of the process, MiB", below(ceiling_mib), found["peak_process_mib"])


def _performance(case: Case) -> None:
    _, gpu, spec = _subject(case)
    record = _last_run(case, gpu) if card_of(case.context.machine, _NAME) is not None else None
    if record is None:
        best = next(iter(offered(target_plan(gpu, spec))), None)
        _tell_prediction(case, best)
        command = f"wan22 benchmark --model ti2v-5b --workload {TARGET_WORKLOAD.name}"
        case.not_measured(f"no run of ti2v-5b {TARGET_WORKLOAD.name} on a {_NAME} here", f"Run {command} on one.")
    case.fact("run", record.run_id)
    for target in record.targets:
        what = f"{target.name} {target.comparison} {target.limit:g} {target.unit}"
        if target.severity is Severity.CRITICAL and target.verdict is not VerdictValue.NOT_MEASURED:
            case.expect(what, true("held"), target.verdict is VerdictValue.PASS)
        case.fact(f"{target.name}, worst repeat, {target.unit}", target.observed)
    missing = [each.name for each in record.targets if each.verdict is VerdictValue.NOT_MEASURED]
    if missing:
        case.not_measured(f"the run {record.run_id} has no {', '.join(missing)}", "Run it again.")


def _last_run(case: Case, gpu: GpuProfile) -> RunRecord | None:
    """The newest believable run of the real model on this very card, at its own size."""
    if case.context.replayed is not None:
        return None
    store = HistoryStore(case.context.settings.history_url)
    try:
        for each in store.list_runs(_ASKED_RUNS, workload=TARGET_WORKLOAD.name):
            believed = each.verdict not in (RunState.BROKEN, RunState.INTEGRITY_FAILED)
            if not believed or each.architecture != "ti2v-5b" or each.device_name != gpu.name.value:
                continue
            labels = (record := store.get(each.run_id)).labels
            if labels.comparable and not labels.emulated and labels.device_uuid == gpu.uuid.value:
                return record
    finally:
        store.close()
    return None


def _tell_prediction(case: Case, best: Candidate | None) -> None:
    if best is None or best.generation is None:
        case.fact("predicted", "nothing exact fits")
        return
    time = best.generation
    case.fact(f"{best.configuration.name}, predicted generation, s", f"{time.low:.0f} to {time.high:.0f}")
    case.fact(f"{best.configuration.name}, predicted peak, MiB", highest_mib(best))
    for name, verdict in best.targets.items():
        case.fact(f"{name}, predicted", verdict.value)


_detects = partial(
    Check,
    category="rtx_4080",
    behaviour="detection and settings",
    advice="Compare with wan22 hardware and wan22 plan of that card.",
)
_keeps_memory = partial(
    Check,
    category="rtx_4080",
    behaviour="VRAM management",
    advice="Compare with wan22 plan of that card, and with what holds its memory.",
)

CHECKS = (
    _detects("rtx_4080.detection", title="The card is read as what it is", run=_detection),
    _detects("rtx_4080.settings", title="Its settings are those that it needs", run=_settings),
    _keeps_memory("rtx_4080.vram_plan", title="What is said to fit stays below the card", run=_vram_plan),
    _keeps_memory("rtx_4080.vram_action", title="At 90 % of its memory something is done", run=_vram_action),
    _keeps_memory(
        "rtx_4080.vram_allocations",
        title="Memory is handed out up to the card's size and refused beyond it",
        run=_vram_allocations,
    ),
    *quantization.CHECKS,
    Check(
        "rtx_4080.performance",
        category="rtx_4080",
        behaviour="performance against targets",
        title="The last run on this card meets the critical targets",
        run=_performance,
        advice="Look at the run's report, and at wan22 plan for a faster recipe.",
    ),
)
