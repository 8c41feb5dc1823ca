"""The memory of an RTX 4080: what is said to fit, what is done at 90 %, and what is really handed out."""

from __future__ import annotations

from functools import partial

from wan22core.errors import DeviceError
from wan22core.hardware.nvml import full_uuid
from wan22core.hardware.probes import open_probe
from wan22core.planning.calibration import MeasuredRow, measured_rows, memory_factors
from wan22core.planning.memory_model import peaks
from wan22core.planning.tiles import SAFETY
from wan22core.records import AlertLevel, Sample, TorchDevice
from wan22core.session.locks import DeviceLock
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.thresholds import ActionKind
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, below, between, equal
from wan22core.validation.planned import card_of, highest_mib, offered, target_plan, weights_floor_mib
from wan22core.validation.registry import Check
from wan22core.validation.rtx_4080_card import NAME, REPORTED, SIZE_MIB, subject

_WITHIN = (0.9, 1.1)
"""Predicted by measured memory of a run on the measured card."""
_FILLED = 0.85
"""Share of what was free that must have been handed out before the refusal: the context takes some 600 MiB of it."""
_IN_USE = 0.05
"""Share of a card that its driver and a desktop hold at rest."""
_USE_PERCENT = (*range(80, 97), *range(95, 79, -1), *(12 * [80]))
"""Use of the card second by second in a trace made by hand: past every threshold, back, and calm."""


def _plan(case: Case) -> None:
    """The plan against what does not come from it: the card's own readings, weights by their shapes, measured runs."""
    _, gpu, spec = subject(case)
    total, used = gpu.vram_total_mib, gpu.vram_used_mib
    if total.value is None or used.value is None:
        why = (total if total.value is None else used).reason
        case.not_measured(f"what is free of the card is unknown: {why}", "Give more of its dumps.")
    free_mib = total.value - used.value
    case.fact("free of the card, MiB", free_mib)
    result = target_plan(gpu, spec)
    found = offered(result)
    case.expect("exact configurations that fit", at_least(1), len(found))
    for each in found:
        name, peak = each.configuration.name, highest_mib(each)
        case.expect(f"peak of {name} with its safety, MiB", below(free_mib), peak * SAFETY)
        case.expect(f"peak of {name}, above its weights, MiB", at_least(weights_floor_mib(each.configuration)), peak)
    for each in (candidate for candidate in result.candidates if not candidate.fits and candidate.runs):
        peak = highest_mib(each) * SAFETY
        case.expect(f"{each.configuration.name} is refused for its peak, MiB", at_least(free_mib), peak)
    for row in measured_rows():
        _judge_measured(case, row)
    case.fact("recommended of this version", result.recommended)
    case.fact("fastest that is predicted", found[0].configuration.name if found else None)


def _judge_measured(case: Case, row: MeasuredRow) -> None:
    """What the same model says of a run that was measured; nothing where only one component was on the device."""
    measured = [each for each in (row.denoise_reserved_mib, row.decode_reserved_mib) if each is not None]
    if row.alone is not None or not measured:
        return
    predicted = peaks(row.configuration, row.workload, memory_factors())
    share = max(predicted[stage].reserved_mib for stage in ("denoise", "decode")) / max(measured)
    shape = f"{row.workload.width}x{row.workload.height}, {row.workload.frames} frames"
    what = f"measured {row.configuration.name}, {row.configuration.transformer.value}, {shape}: predicted by measured"
    case.expect(what, between(*_WITHIN), share)


def _action(case: Case) -> None:
    """The health monitor on a trace of the card's memory: at 90 % the next placement is advised, once."""
    _, gpu, _ = subject(case)
    case.look_at("a synthetic trace of the use of its memory")
    total_mib = float(gpu.vram_total_mib.value or SIZE_MIB)
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


def _allocations(case: Case) -> None:
    device = _device(case)
    if device.uuid is None:
        why = f"torch gives no uuid of {device.name}, so that it can't be locked against a benchmark"
        case.not_measured(why, "Update torch.")
    ceiling_mib = min(SIZE_MIB, device.total_mib)
    emulated = f"{device.name} under an emulated ceiling of {ceiling_mib} MiB"
    case.look_at(device.name if device.total_mib <= SIZE_MIB else emulated)
    lock = DeviceLock(case.context.settings.locks_path)
    lock.acquire(full_uuid(device.uuid))
    try:
        _require_unused(case, device.name, device.uuid, device.total_mib)
        arguments = {"device": f"cuda:{device.index}", "ceiling_mib": ceiling_mib}
        found = case.job("wan22core.worker.exercise:fill_device_job", arguments)
    finally:
        lock.release()
    usable_mib = min(ceiling_mib, found["free_before_mib"])
    case.expect("an allocation is refused", equal(True), found["refused"])
    case.expect("handed out before the refusal, MiB", at_least(_FILLED * usable_mib), found["allocated_mib"])
    case.expect("peak of the process, MiB", below(ceiling_mib), found["peak_process_mib"])


def _device(case: Case) -> TorchDevice:
    """This machine's RTX 4080 by its uuid, else the first device that has as much memory."""
    facts = case.context.torch
    if not facts.devices:
        case.not_measured(f"no CUDA device here: {facts.reason}", "Run it on a machine with an NVIDIA card.")
    own = card_of(case.context.here, NAME)
    wanted = own[0].uuid.value if own is not None else None
    for device in facts.devices:
        if wanted is not None and device.uuid is not None and full_uuid(device.uuid) == wanted:
            return device
    large = [device for device in facts.devices if device.total_mib >= REPORTED[0] * SIZE_MIB]
    if not large:
        seen = ", ".join(f"{device.name} of {device.total_mib} MiB" for device in facts.devices)
        case.not_measured(f"no device of 16 GiB here: {seen}", "Run it on a machine with a larger card.")
    return large[0]


def _require_unused(case: Case, name: str, uuid: str, total_mib: int) -> None:
    """Filling a card that others use breaks their work."""
    try:
        probe = open_probe(uuid)
    except DeviceError as error:
        case.not_measured(f"whether others use {name} is unknown: {error.message}", error.next_action)
    try:
        reading = probe.read(None)
    finally:
        probe.close()
    if reading.gpu_device_mib is None:
        why = probe.reasons.get("gpu_device_mib", "its probe does not say")
        case.not_measured(f"what is in use of {name} is unknown: {why}", "Check that nvidia-smi works here.")
    alone = "Run it again when nothing else uses the card."
    if reading.processes:
        case.not_measured(f"{len(reading.processes)} other processes compute on {name}", alone)
    if reading.gpu_device_mib > _IN_USE * total_mib:
        used = f"{reading.gpu_device_mib:.0f} of {total_mib} MiB of {name} are in use"
        case.not_measured(f"{used}, more than {_IN_USE:.0%}", alone)


_check = partial(
    Check,
    category="rtx_4080",
    behaviour="VRAM management",
    advice="Compare with wan22 plan of that card, and with what holds its memory.",
)

CHECKS = (
    _check("rtx_4080.vram_plan", title="What is said to fit stays below the card", run=_plan),
    _check("rtx_4080.vram_action", title="At 90 % of its memory something is done", run=_action),
    _check(
        "rtx_4080.vram_allocations",
        title="Memory is handed out up to the card's size and refused beyond it",
        run=_allocations,
    ),
)
