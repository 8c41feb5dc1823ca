"""The original's interface when something fails: named, with what ran before, and never the caller's end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import api_functions
from tests.api_cases import HERE, SMALL, functions, statuses
from wan22core.api import WAN22PerformanceBenchmarks
from wan22core.errors import IncompatibleHardwareError, UserInputError
from wan22core.records import RunState, Stage, StageStatus
from wan22core.specs import Deadlines

FAILURES = [
    ("nothing", "OUTPUT_MISSING"),
    ("not_finite", "OUTPUT_NOT_FINITE"),
    ("constant", "OUTPUT_CONSTANT"),
    ("still", "OUTPUT_CONSTANT"),
    ("one_frame_less", "OUTPUT_WRONG_FRAMES"),
    ("fail", "STAGE_FAILED"),
]


@pytest.fixture
def small() -> WAN22PerformanceBenchmarks:
    return WAN22PerformanceBenchmarks(workload=SMALL)


@pytest.mark.parametrize("where", ["process", "worker"])
@pytest.mark.parametrize(("generator", "code"), FAILURES)
def test_a_generator_without_a_video_is_a_named_failure(
    small: WAN22PerformanceBenchmarks, where: str, generator: str, code: str
) -> None:
    """Never a time: the targets on it are not measured, with the failure as the reason."""
    results = small.run_comprehensive_ti2v_benchmark(*functions(where, "load_nothing", generator))
    assert results.error is not None
    assert (results.verdict, results.error.code, results.error.stage) == (RunState.BROKEN, code, Stage.GENERATE)
    assert (results.generation_s, results.generation_fps) == (None, None)
    assert results.reasons["generation_s"] == results.error.message
    assert statuses(results) == [
        (Stage.LOAD, StageStatus.OK),
        (Stage.GENERATE, StageStatus.FAILED),
        (Stage.WRITE, StageStatus.NOT_RUN),
    ]


@pytest.mark.parametrize("where", ["process", "worker"])
def test_a_loader_that_fails_is_a_named_failure(small: WAN22PerformanceBenchmarks, where: str) -> None:
    """Nothing is generated after it, and no number is made up."""
    results = small.run_comprehensive_ti2v_benchmark(*functions(where, "fail_to_load", "picture"))
    assert results.error is not None
    assert (results.error.code, results.error.stage) == ("STAGE_FAILED", Stage.LOAD)
    assert results.error.message == "The stage load failed with RuntimeError: no such weights"
    assert (results.load_s, results.generation_s, results.summary) == (
        None,
        None,
        f"The benchmark broke: {results.error.message}",
    )
    assert statuses(results)[0] == (Stage.LOAD, StageStatus.FAILED)
    assert {status for _, status in statuses(results)[1:]} == {StageStatus.NOT_RUN}


def test_a_worker_that_dies_costs_the_run_and_not_the_caller(small: WAN22PerformanceBenchmarks) -> None:
    """What a closure would have killed."""
    results = small.benchmark_video_generation_speed(*functions("worker", "load_nothing", "die"))
    assert results.error is not None
    assert (results.verdict, results.error.code) == (RunState.BROKEN, "WORKER_KILLED")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.run_comprehensive_ti2v_benchmark(api_functions.load, f"{HERE}:picture"), "different kinds"),
        (lambda b: b.run_comprehensive_ti2v_benchmark("load", "generate"), "loader can't be 'load'"),
        (lambda b: b.benchmark_ti2v_5b_model_loading(None), "different kinds: None"),
        (lambda b: b.benchmark_ti2v_5b_model_loading("no_such_module:load"), "'no_such_module' can't be imported"),
        (lambda b: b.benchmark_ti2v_5b_model_loading(f"{HERE}:no_such"), f"'{HERE}' has no 'no_such'"),
        (lambda b: WAN22PerformanceBenchmarks(repeats=0), "repeats can't be 0"),
        (lambda b: WAN22PerformanceBenchmarks(device="gpu"), "device can't be 'gpu'"),
    ],
)
def test_bad_input_is_refused(
    small: WAN22PerformanceBenchmarks, call: Callable[[WAN22PerformanceBenchmarks], object], message: str
) -> None:
    """Before anything is measured, with the next step."""
    with pytest.raises(UserInputError, match=message):
        call(small)


@pytest.mark.parametrize("where", ["process", "worker"])
def test_a_device_that_is_not_there_is_refused(where: str) -> None:
    """The asked device is never replaced by another."""
    benchmarks = WAN22PerformanceBenchmarks(workload=SMALL, device="cuda:7")
    with pytest.raises(IncompatibleHardwareError, match="cuda:7"):
        benchmarks.run_comprehensive_ti2v_benchmark(*functions(where, "load_nothing", "picture"))


def test_a_deadline_kills_a_loader_in_the_worker() -> None:
    """Closures have none, dotted names do."""
    benchmarks = WAN22PerformanceBenchmarks(workload=SMALL, deadlines=Deadlines(load_s=1e-6))
    results = benchmarks.benchmark_ti2v_5b_model_loading("signal:pause")
    assert results.error is not None
    assert (results.error.code, results.load_s) == ("TIMEOUT", None)
