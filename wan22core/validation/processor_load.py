"""Real loads on this machine's processors and what its settings do to them, each in a child process."""

from __future__ import annotations

from typing import Any

from wan22core.planning.host_settings import HostSettings, environment_for
from wan22core.records import AppliedSetting
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, equal, true
from wan22core.validation.planned import settings_of

_LOAD_S = 2.0
_ROUND_S = 0.5
_ROUNDS = 5
_BUSY_SHARE = 0.8
"""A product of 1024 x 1024 is one parallel region of some 10 ms: threads that work keep their cores busy for more than
nine tenths of it; below 0.8 at least one in five waits for others all the time."""
_SPEEDUP_SHARE = 0.5
"""Of the cores: such a product stays in the caches and has no serial part to speak of, so that whatever takes half of
the cores' worth is no limit of the memory but a binding, a quota or too few threads."""
_WAITING_CORES = 0.1
"""From so many cores that were wanted and not had, others use the machine, and a low figure says nothing about it."""
_ALONE = "Run it again while nothing else uses the machine."
TAKEN_SHARE = 0.05
"""Of the main memory that is available: enough to be seen, and no harm to others."""


def utilisation(case: Case) -> None:
    """The threads that planning gives for this machine, under matrix products."""
    case.look_at("this machine")
    planned = settings_of(case.context.here)
    row = _rows(case, [planned.threads], _LOAD_S, 1)[0]
    case.expect("threads in force", equal(planned.threads), row["threads"])
    case.fact("cores that its threads waited for", row["waiting_cores"])
    share = _BUSY_SHARE * planned.threads
    if row["busy_cores"] < share <= row["busy_cores"] + (row["waiting_cores"] or 0.0):
        case.fact("cores busy", row["busy_cores"])
        case.not_measured(f"its threads waited for {row['waiting_cores']:.2f} cores that others had", _ALONE)
    case.expect(f"cores busy, of {planned.threads} threads", at_least(share), row["busy_cores"])


def scaling(case: Case) -> None:
    """One thread against one on each core, in turns; the best round of each counts, because others only take away."""
    case.look_at("this machine")
    cpu = case.context.here.cpu
    usable = [value for value in (cpu.physical_cores.value, cpu.usable_cpus.value) if value is not None]
    cores = int(min(usable, default=1))
    if cores < 2:
        case.not_measured("this machine has one core to use", "Run it on a machine with more.")
    rows = _rows(case, [1, cores], _ROUND_S, _ROUNDS)
    one, every = ([row for row in rows if row["threads"] == threads] for threads in (1, cores))
    case.expect("rounds with all threads in force", equal(_ROUNDS), len(every))
    speedup = max(row["products_s"] for row in every) / max(row["products_s"] for row in one)
    waiting = min((row["waiting_cores"] or 0.0) for row in every)
    case.fact("cores that its threads waited for in the least disturbed round", waiting)
    if speedup < _SPEEDUP_SHARE * cores and waiting >= _WAITING_CORES:
        case.fact(f"speed-up of {cores} threads", speedup)
        case.not_measured(f"in every round its threads waited for {waiting:.2f} cores that others had", _ALONE)
    case.expect(f"speed-up of {cores} threads over one", at_least(_SPEEDUP_SHARE * cores), speedup)


def settings_applied(case: Case) -> None:
    """The settings for this machine, and others than those, so that there is something to apply and to take back."""
    case.look_at("this machine")
    planned = settings_of(case.context.here)
    changed = {
        "threads": planned.threads + 1,
        "tf32": not planned.tf32,
        "fp16_accumulation": not planned.fp16_accumulation,
    }
    asked = [planned, planned.model_copy(update=changed)]
    found = case.job(
        "wan22core.worker.exercise:settings_job",
        {"settings": [each.model_dump(mode="json") for each in asked]},
        environment_for(planned),
    )
    for name, settings, row in zip(("planned", "changed"), asked, found["rows"], strict=True):
        _judge(case, name, settings, row)


def _judge(case: Case, name: str, settings: HostSettings, row: dict[str, Any]) -> None:
    inside = [AppliedSetting.model_validate(each) for each in row["applied"]]
    for each in inside:
        if each.held or each.name in ("threads", "tf32", "fp16_accumulation", "numa_node"):
            case.expect(f"{name}: {each.name} is {each.asked}", true("held"), each.held)
        else:
            case.fact(f"{name}: {each.name} is not {each.asked}", each.reason)
    case.expect(f"{name}: threads that torch then says", equal(settings.threads), row["inside"]["threads"])
    case.expect(f"{name}: afterwards", equal(row["before"]), row["after"])


def _rows(case: Case, threads: list[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    arguments = {"threads": threads, "seconds": seconds, "rounds": rounds}
    found: list[dict[str, Any]] = case.job("wan22core.worker.exercise:processor_load_job", arguments)["rows"]
    return found
