"""The loads on this machine: processors, its settings, main memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.validation.results import answered, misses, result_of
from wan22core.records import CheckVerdict, Reading
from wan22core.session.locks import DeviceLock
from wan22core.settings import Settings
from wan22core.validation import main_memory, processor_load
from wan22core.validation.context import Context, packaged


def context_on(**changes: Any) -> Context:
    """This machine with the processors of another one; ``changes`` are values of their readings."""
    context = Context.new("x", Settings())
    cpu = packaged("synthetic_threadripper-pro-5975wx")[0].cpu
    readings = {
        name: getattr(cpu, name).model_copy(update={"value": value, "reason": None}) for name, value in changes.items()
    }
    context.__dict__["here"] = context.here.model_copy(update={"cpu": cpu.model_copy(update=readings)})
    return context


def loaded(monkeypatch: pytest.MonkeyPatch, **row: Callable[[int], Any]) -> list[list[int]]:
    """Rows as the child would send them, whatever the machine; returns what it was asked for."""
    asked: list[list[int]] = []

    def rows(_case: object, threads: list[int], _s: float, rounds: int) -> list[dict[str, Any]]:
        asked.append(threads)
        usual: dict[str, Any] = {"cpus": list(range(4)), "others_cores": 0.0, "products_s": 10.0}
        found = [{**usual, "threads": used, "busy_cores": float(used)} for used in threads * rounds]
        return [{**each, **{name: value(each["threads"]) for name, value in row.items()}} for each in found]

    monkeypatch.setattr(processor_load, "_rows", rows)
    return asked


FOUR: dict[str, Any] = {"physical_cores": 4, "usable_cpus": 4.0, "affinity": [0, 1, 2, 3]}


@pytest.mark.parametrize(
    ("busy", "others", "cpus", "verdict"),
    [
        (1.0, 0.0, 4, "pass"),
        (0.8, None, 4, "pass"),
        (0.7, 0.05, 4, "fail"),
        (0.7, None, 4, "fail"),
        (0.5, 1.0, 4, "not_measured"),
        (0.3, 0.5, 4, "fail"),
        (0.3, 4.0, 4, "not_measured"),
        (1.0, 0.0, 1, "fail"),
        (0.5, 1.0, 1, "fail"),
    ],
)
def test_idle_threads_fail_and_crowded_ones_say_nothing(
    busy: float, others: float | None, cpus: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what others used excuses a low figure, and a child that is bound to fewer CPUs fails beside anything."""
    loaded(
        monkeypatch,
        busy_cores=lambda used: busy * used,
        others_cores=lambda _: others,
        cpus=lambda _: list(range(cpus)),
    )
    result = result_of("threadripper_pro.cpu_utilisation", context_on(**FOUR))
    assert result.verdict.value == verdict, result.reason


def test_two_threads_are_loaded_where_one_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread keeps its core busy under any binding."""
    asked = loaded(monkeypatch)
    two = {"physical_cores": 2, "usable_cpus": 2.0, "affinity": [0, 1, 2, 3]}
    assert result_of("threadripper_pro.cpu_utilisation", context_on(**two)).verdict is CheckVerdict.PASS
    assert asked == [[2]]


@pytest.mark.parametrize(
    ("speedup", "others", "verdict"),
    [(4.0, 0.0, "pass"), (1.9, 0.0, "fail"), (1.9, None, "fail"), (1.9, 0.4, "not_measured"), (0.8, 0.4, "fail")],
)
def test_cores_that_bring_nothing_fail(
    speedup: float, others: float | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the cores' worth is asked for."""
    rate = {1: 10.0, 4: 10.0 * speedup}
    loaded(monkeypatch, products_s=lambda used: rate[used], others_cores=lambda _: others)
    result = result_of("threadripper_pro.scaling_measured", context_on(**FOUR))
    assert result.verdict.value == verdict, result.reason


def test_threads_that_torch_does_not_take_are_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(monkeypatch, threads=lambda _: 1)
    assert misses(result_of("threadripper_pro.scaling_measured", context_on(**FOUR))) == [
        "rounds with one thread in force", "rounds with 4 threads in force",
    ]  # fmt: skip
    assert misses(result_of("threadripper_pro.cpu_utilisation", context_on(**FOUR)))[0] == "threads in force"


@pytest.mark.parametrize("name", ["cpu_utilisation", "scaling_measured"])
def test_one_core_proves_nothing(name: str) -> None:
    result = result_of(f"threadripper_pro.{name}", context_on(physical_cores=1))
    assert (result.verdict, result.reason) == (
        CheckVerdict.NOT_MEASURED, "fewer than two cores of this machine may be used",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["cpu_utilisation", "scaling_measured", "memory_limits"])
def test_nothing_is_loaded_beside_a_benchmark(name: str) -> None:
    """A load would spoil its figures."""
    lock = DeviceLock(Settings().locks_path)
    lock.acquire("GPU-0")
    try:
        result = result_of(f"threadripper_pro.{name}", context_on(**FOUR))
    finally:
        lock.release()
    assert (result.verdict, result.reason) == (CheckVerdict.NOT_MEASURED, "a benchmark runs on the GPU GPU-0")


@pytest.mark.parametrize("item", ["threads", "cpus"])
def test_settings_that_stay_behind_fail(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force afterwards is compared with what was there before, item by item."""
    judge = processor_load._judge

    def stained(case: Any, name: str, settings: Any, row: dict[str, Any]) -> None:
        judge(case, name, settings, {**row, "after": {**row["after"], item: [99]}})

    monkeypatch.setattr(processor_load, "_judge", stained)
    assert misses(result_of("threadripper_pro.settings_applied")) == ["planned: afterwards", "changed: afterwards"]


def test_a_setting_that_is_not_in_force_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is started without the variables has none of them."""
    monkeypatch.setattr(processor_load, "environment_for", lambda _: {"OMP_NUM_THREADS": "99", "MKL_NUM_THREADS": "99"})
    found = misses(result_of("threadripper_pro.settings_applied"))
    assert [each.partition(" is ")[0] for each in found] == ["planned: OMP_NUM_THREADS", "planned: MKL_NUM_THREADS"]


@pytest.mark.parametrize(("left_mib", "asked_mib"), [(8_192, 409.6), (262_144, 1024.0)])
def test_memory_that_is_not_had_fails(left_mib: int, asked_mib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of what the control groups leave is asked for, and a GiB at most."""
    monkeypatch.setattr(main_memory, "memory_headroom", lambda: Reading[int](value=left_mib, source="test"))
    asked = answered(monkeypatch, taken_mib=asked_mib / 2, resident_mib=1e9)
    assert misses(result_of("threadripper_pro.memory_limits")) == ["taken by a child, MiB", "and below the limit, MiB"]
    assert asked == [{"mib": pytest.approx(asked_mib)}]


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (Reading[int].missing("cgroup", "no use is shown"), "how much memory is left is unknown: no use is shown"),
        (Reading[int](value=63, source="cgroup"), "63 MiB of memory are left, too few to take any"),
    ],
)
def test_memory_that_may_not_be_there_is_not_taken(
    left: Reading[int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_memory, "memory_headroom", lambda: left)
    result = result_of("threadripper_pro.memory_limits")
    assert (result.verdict, result.reason) == (CheckVerdict.NOT_MEASURED, reason)


def test_memory_of_unknown_size_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context.new("x", Settings())
    memory = context.here.memory.model_copy(update={"total_mib": Reading[int].missing("test", "it does not say")})
    context.__dict__["here"] = context.here.model_copy(update={"memory": memory})
    result = result_of("threadripper_pro.memory_limits", context)
    assert (result.verdict, result.reason) == (CheckVerdict.NOT_MEASURED, "memory, MiB is unknown: it does not say")
