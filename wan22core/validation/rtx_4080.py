"""An RTX 4080: on the machine that has one, else from a snapshot of one and under an emulated ceiling of its size.

The expected settings and limits are those of the original description's validation (12.2).
"""

from __future__ import annotations

from functools import partial

from wan22core.history.store import HistoryStore
from wan22core.planning.planner import Candidate
from wan22core.recipes import recipe
from wan22core.records import GpuProfile, RunRecord, RunState, VerdictValue
from wan22core.targets import Severity
from wan22core.validation import rtx_4080_memory as memory
from wan22core.validation import rtx_4080_quantization as quantization
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, between, equal, true
from wan22core.validation.planned import TARGET_WORKLOAD, card_of, highest_mib, offered, settings_of, target_plan
from wan22core.validation.registry import Check
from wan22core.validation.rtx_4080_card import NAME, REPORTED, SIZE_MIB, subject

_ASKED_RUNS = 200
_OF_TODAY = ("driver", "torch", "wan22", "commit")
"""What a run's environment must agree in with today's, for its figures to be those of today."""


def _detection(case: Case) -> None:
    machine, gpu, spec = subject(case)
    case.expect("name", equal(f"NVIDIA {NAME}"), gpu.name)
    case.expect("memory, MiB", between(REPORTED[0] * SIZE_MIB, REPORTED[1] * SIZE_MIB), gpu.vram_total_mib)
    case.expect("compute capability", equal("8.9"), gpu.compute_capability)
    case.expect("vendor", equal("nvidia"), machine.gpu_vendor)
    case.expect("generation of the table", equal("Ada"), spec.generation.name)
    case.fact("driver", gpu.driver)


def _settings(case: Case) -> None:
    """Batch and attention are facts: this version has one of each for every card, so that no machine can miss them."""
    machine, gpu, spec = subject(case)
    found = settings_of(machine, (gpu, spec))
    case.expect("working precision", equal("bf16"), found.working_precision)
    case.expect("TF32 on tensor cores", equal(True), found.tf32)
    case.expect("VAE tile, pixels", at_least(512), found.vae_tile)
    case.expect("memory fraction", at_least(0.85), found.memory_fraction)
    case.fact("batch", found.batch)
    recommended = target_plan(gpu, spec).recommended
    attention = recipe(recommended).attention_backend if recommended is not None else None
    case.fact(f"attention of the recommended recipe, {recommended or 'none'}", attention)


def _performance(case: Case) -> None:
    _, gpu, spec = subject(case)
    record = _last_run(case, gpu) if card_of(case.context.machine, NAME) is not None else None
    if record is None:
        best = next(iter(offered(target_plan(gpu, spec))), None)
        _tell_prediction(case, best)
        command = f"wan22 benchmark --model ti2v-5b --workload {TARGET_WORKLOAD.name}"
        case.not_measured(f"no run of ti2v-5b {TARGET_WORKLOAD.name} on a {NAME} here", f"Run {command} on one.")
    case.fact("run", record.run_id)
    case.fact("made at", record.created_at.isoformat(timespec="seconds"))
    _require_of_today(case, record, gpu)
    for target in record.targets:
        what = f"{target.name} {target.comparison} {target.limit:g} {target.unit}"
        if target.severity is Severity.CRITICAL and target.verdict is not VerdictValue.NOT_MEASURED:
            case.expect(what, true("held"), target.verdict is VerdictValue.PASS)
        case.fact(f"{target.name}, worst repeat, {target.unit}", target.observed)
    missing = [each.name for each in record.targets if each.verdict is VerdictValue.NOT_MEASURED]
    if missing:
        case.not_measured(f"the run {record.run_id} has no {', '.join(missing)}", "Run it again.")


def _require_of_today(case: Case, record: RunRecord, gpu: GpuProfile) -> None:
    """A run under another driver or program says nothing of this one."""
    software = case.context.here.software
    readings = {"driver": gpu.driver, "commit": software.commit, **software.packages}
    today = {name: readings[name].value if name in readings else None for name in _OF_TODAY}
    for name in _OF_TODAY:
        case.fact(f"{name} of the run", record.environment.get(name))
    changed = [name for name in _OF_TODAY if record.environment.get(name) != today[name]]
    if changed:
        was = ", ".join(f"{name} {record.environment.get(name) or 'unknown'}" for name in changed)
        now = ", ".join(f"{name} {today[name] or 'unknown'}" for name in changed)
        case.not_measured(f"the last run was under {was}, and today it is {now}", "Run the benchmark again.")


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

CHECKS = (
    _detects("rtx_4080.detection", title="The card is read as what it is", run=_detection),
    _detects("rtx_4080.settings", title="Its settings are those that it needs", run=_settings),
    *memory.CHECKS,
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
