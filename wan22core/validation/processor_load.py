"""Real loads on this machine's processors and what its settings do to them, each in a child process."""

from __future__ import annotations

from math import inf
from typing import Any

from wan22core.planning.host_settings import HostSettings, environment_for
from wan22core.records import AppliedSetting
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, equal, true
from wan22core.validation.planned import card_of, settings_of, usable_cores

_LOAD_S = 2.0
_ROUND_S = 0.5
_ROUNDS = 5
_BUSY_SHARE = 0.8
"""A product of 1024 x 1024 is one parallel region of some 10 ms: threads that work keep their cores busy for more than
nine tenths of it; below 0.8 at least one in five waits for others all the time."""
_SPEEDUP_SHARE = 0.5
"""Of the cores: such a product stays in the caches and has no serial part to speak of, so that whatever takes half of
the cores' worth is no limit of the memory but a binding, a quota or too few threads."""
_OTHERS_CORES = 0.1
"""Less than so many cores of others is the system's own housekeeping, and excuses nothing."""
_CHANGES_IN_A_PROCESS = ("threads", "tf32", "fp16_accumulation", "numa_node")
"""Settings that a process can change once it runs: variables are read when it starts, and interop threads set once."""


def utilisation(case: Case) -> None:
    """The threads that planning gives for this machine, and at least two, under matrix products."""
    cores = _require_two_cores(case)
    case.require_no_benchmark()
    here = case.context.here
    threads = min(cores, max(2, settings_of(here, card_of(here)).threads))
    row = _rows(case, [threads], _LOAD_S, 1)[0]
    case.expect("threads in force", equal(threads), row["threads"])
    _expect_cpus(case, row)
    _expect_unless_crowded(case, f"cores busy, of {threads} threads", _BUSY_SHARE * threads, row["busy_cores"], row)


def scaling(case: Case) -> None:
    """One thread against one on each core, in turns; the best round of each counts, because others only take away."""
    cores = _require_two_cores(case)
    case.require_no_benchmark()
    rows = _rows(case, [1, cores], _ROUND_S, _ROUNDS)
    one, every = ([row for row in rows if row["threads"] == threads] for threads in (1, cores))
    case.expect("rounds with one thread in force", equal(_ROUNDS), len(one))
    case.expect(f"rounds with {cores} threads in force", equal(_ROUNDS), len(every))
    _expect_cpus(case, rows[-1])
    if not one or not every:
        return
    speedup = max(row["products_s"] for row in every) / max(row["products_s"] for row in one)
    calmest = min(every, key=lambda row: inf if row["others_cores"] is None else row["others_cores"])
    _expect_unless_crowded(case, f"speed-up of {cores} threads over one", _SPEEDUP_SHARE * cores, speedup, calmest)


def _require_two_cores(case: Case) -> int:
    """The cores that a load may use."""
    case.look_at("this machine")
    cores = usable_cores(case.context.here.cpu)
    if cores < 2:
        case.not_measured("fewer than two cores of this machine may be used", "Run it on a machine with more.")
    return cores


def _expect_cpus(case: Case, row: dict[str, Any]) -> None:
    """A binding that came in between leaves the child fewer than this process has."""
    allowed, what = case.context.here.cpu.affinity.value, "CPUs that the loaded thread may run on"
    if allowed is None:
        case.fact(what, len(row["cpus"]))
    else:
        case.expect(what, equal(len(allowed)), len(row["cpus"]))


def _expect_unless_crowded(case: Case, what: str, needed: float, figure: float, row: dict[str, Any]) -> None:
    """A low figure is no failure where what others used of the same CPUs explains it.

    A region waits for its slowest thread, and one that shares its CPU runs at half speed: others halve a figure, and
    beyond that take as much as they used.
    """
    others, cpus = row["others_cores"], len(row["cpus"])
    case.fact("cores that others used", others)
    if figure < needed and others is not None and others >= _OTHERS_CORES:
        undisturbed = 2 * figure * cpus / (cpus - others) if others < cpus else inf
        if undisturbed >= needed:
            case.fact(what, figure)
            case.not_measured(f"others used {others:.2f} cores", "Run it again while nothing else uses the machine.")
    case.expect(what, at_least(needed), figure)


def settings_applied(case: Case) -> None:
    """The settings for this machine, and others than those, so that there is something to apply and to take back."""
    case.look_at("this machine")
    here = case.context.here
    planned = settings_of(here, card_of(here))
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
    """Of the first settings of a process all must hold; of later ones what a process can change."""
    for each in (AppliedSetting.model_validate(applied) for applied in row["applied"]):
        if name == "planned" or each.name in _CHANGES_IN_A_PROCESS:
            case.expect(f"{name}: {each.name} is {each.asked}", true("held"), each.held)
        if not each.held:
            case.fact(f"{name}: {each.name} is {each.read_back or 'not set'}", each.reason)
    case.expect(f"{name}: threads that torch then says", equal(settings.threads), row["inside"]["threads"])
    if settings.numa_cpus is not None:
        case.expect(f"{name}: CPUs then", equal(sorted(settings.numa_cpus)), row["inside"]["cpus"])
    case.expect(f"{name}: afterwards", equal(row["before"]), row["after"])


def _rows(case: Case, threads: list[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    arguments = {"threads": threads, "seconds": seconds, "rounds": rounds}
    found: list[dict[str, Any]] = case.job("wan22core.worker.exercise:processor_load_job", arguments)["rows"]
    return found
