"""The original's interface: its usage example, own functions in the worker and in this process, and their failures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wan22core
from tests import api_functions
from tests.api_cases import HERE, SMALL, functions
from wan22core.api import BenchmarkResult, HardwareProfile, TI2VBenchmarkTargets, WAN22PerformanceBenchmarks
from wan22core.api.results import VramComparison, judge
from wan22core.hardware.detect import detect
from wan22core.records import CpuProfile, GpuProfile, MemoryProfile, Reading, RunState, VerdictValue
from wan22core.report.document import load_run
from wan22core.specs import WORKLOADS
from wan22core.targets import TARGETS, Severity

NAMES = [target.name for target in TARGETS]


def declared(**changes: Any) -> HardwareProfile:
    """The machine of the original's usage example."""
    example = HardwareProfile(
        cpu_model="AMD Threadripper PRO 5995WX",
        cpu_cores=64,
        total_memory_gb=128,
        gpu_model="NVIDIA GeForce RTX 4080",
        vram_gb=16,
        is_rtx_4080=True,
        is_threadripper_pro=True,
    )
    return example.model_copy(update=changes)


@pytest.fixture
def small() -> WAN22PerformanceBenchmarks:
    return WAN22PerformanceBenchmarks(workload=SMALL)


def test_the_names_come_from_the_package_too() -> None:
    """They are loaded when they are asked for; another name is an ordinary AttributeError."""
    assert wan22core.WAN22PerformanceBenchmarks is WAN22PerformanceBenchmarks
    assert wan22core.HardwareProfile is HardwareProfile
    assert wan22core.TI2VBenchmarkTargets is TI2VBenchmarkTargets
    with pytest.raises(AttributeError, match="'wan22core' has no attribute 'Benchmarks'"):
        _ = wan22core.Benchmarks


def test_the_interface_imports_no_torch() -> None:
    """The caller's process has torch only if the caller's functions bring it."""
    program = (
        "import sys, wan22core.api; print([n for n in ('torch', 'prefect', 'great_expectations') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_usage_example_runs() -> None:
    """Only its import lines differ. The default workload is the 2-second video that the targets are about."""
    model_loader_func, video_generator_func = api_functions.load_nothing, api_functions.picture

    # Initialize benchmark system
    benchmarks = WAN22PerformanceBenchmarks()

    # Create hardware profile
    hardware_profile = HardwareProfile(
        cpu_model="AMD Threadripper PRO 5995WX",
        cpu_cores=64,
        total_memory_gb=128,
        gpu_model="NVIDIA GeForce RTX 4080",
        vram_gb=16,
        is_rtx_4080=True,
        is_threadripper_pro=True,
    )

    # Run comprehensive benchmarks
    results = benchmarks.run_comprehensive_ti2v_benchmark(model_loader_func, video_generator_func, hardware_profile)

    assert (results.error, results.measured_in, results.workload) == (None, "process", WORKLOADS["2s-720p"])
    assert [target.name for target in results.targets] == NAMES
    assert results.declared_hardware == hardware_profile
    assert results.targets[0].verdict is VerdictValue.PASS
    assert results.targets[1].observed == results.generation_s
    saved = BenchmarkResult.model_validate_json((Path(results.run_dir) / "benchmark.json").read_text())
    assert saved == results


@pytest.mark.parametrize("where", ["process", "worker"])
def test_the_real_tiny_model_is_measured(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, small: WAN22PerformanceBenchmarks, where: str
) -> None:
    """The result says where it ran; a workload that the targets are not about is not measured by them."""
    monkeypatch.setenv("WAN22_WEIGHTS_DIR", str(tiny_checkpoint))
    results = small.run_comprehensive_ti2v_benchmark(*functions(where, "load", "generate"), declared())
    assert (results.error, results.measured_in, results.verdict) == (None, where, RunState.NOT_MEASURED)
    assert (results.loader, results.generator) == (f"{HERE}:load", f"{HERE}:generate")
    assert [row.frames_produced for row in results.repeats] == [5]
    assert results.load_s == results.repeats[0].load_s
    assert results.peak_rss_mib == results.repeats[0].peak_rss_mib
    assert [target.verdict for target in results.targets] == [VerdictValue.PASS, *[VerdictValue.NOT_MEASURED] * 4]
    assert results.targets[1].reason == "asserted for own 2s-720p, this is own small"
    assert (Path(results.run_dir) / "video.mp4").is_file()
    if where == "worker":
        record = load_run(Path(results.run_dir))
        assert (record.verdict, record.targets) == (results.verdict, results.targets)
        assert (record.labels.weights_source, results.integrity) == ("own", record.integrity)


@pytest.mark.parametrize("where", ["process", "worker"])
def test_loading_alone(small: WAN22PerformanceBenchmarks, where: str) -> None:
    """One target; of a video nothing is known, and the result says so."""
    loader, _ = functions(where, "load_nothing", "picture")
    results = small.benchmark_ti2v_5b_model_loading(loader)
    assert [target.name for target in results.targets] == ["model_load_time"]
    assert (results.verdict, results.generator, results.integrity) == (RunState.PASS, None, None)
    assert results.load_s == results.targets[0].observed
    assert results.reasons["generation_s"] == "no video was generated"


@pytest.mark.parametrize("where", ["process", "worker"])
def test_generation_speed(where: str) -> None:
    """Two targets; the frames by the seconds of the slowest repeat."""
    benchmarks = WAN22PerformanceBenchmarks(workload=SMALL, repeats=2)
    results = benchmarks.benchmark_video_generation_speed(*functions(where, "load_nothing", "picture"))
    times = [row.generation_s for row in results.repeats if row.generation_s is not None]
    assert [target.name for target in results.targets] == ["video_2s_generation", "generation_fps"]
    assert len(times) == 2
    assert (results.generation_s, results.generation_fps) == (max(times), SMALL.frames / max(times))


def test_memory_without_a_device_is_none_with_the_reason() -> None:
    """On the CPU there is no device memory: nothing is saved, nothing is zero."""
    benchmarks = WAN22PerformanceBenchmarks(workload=SMALL, device="cpu")
    comparison = benchmarks.benchmark_vram_usage_optimization(
        f"{HERE}:load_nothing", f"{HERE}:picture", f"{HERE}:load_nothing"
    )
    missing = comparison.baseline.reasons["peak_process_mib"]
    assert (comparison.baseline.peak_process_mib, comparison.saved_mib) == (None, None)
    assert comparison.reason == f"baseline: {missing}"
    assert [target.verdict for target in comparison.baseline.targets] == [VerdictValue.NOT_MEASURED] * 2


def test_savings_are_compared_between_fresh_processes_only(small: WAN22PerformanceBenchmarks) -> None:
    """10,240 MiB before and 7,680 after is a quarter saved; in one process nothing is known of it."""
    base = small.benchmark_ti2v_5b_model_loading(f"{HERE}:load_nothing")
    before, after = (base.model_copy(update={"peak_process_mib": mib}) for mib in (10_240.0, 7_680.0))
    found = VramComparison.of(before, after)
    assert (found.saved_mib, found.saved_ratio, found.reason) == (2_560.0, 0.25, None)
    here = after.model_copy(update={"measured_in": "process"})
    assert VramComparison.of(before, here).reason == (
        "before and after need fresh processes: give the functions as module:function"
    )
    assert VramComparison.of(before, None).reason == "no optimized loader was given"


def test_the_limits_are_the_callers_and_the_rest_is_ours() -> None:
    """The five numbers replace those of ``TARGETS``; comparisons and severities stay."""
    limits = TI2VBenchmarkTargets(
        model_load_time_max=30.0,
        video_2s_generation_max=12.0,
        vram_usage_max_mb=8192,
        target_generation_fps=1.5,
        memory_efficiency_target=0.5,
    )
    metrics = tuple(target.metric for target in TARGETS)
    made = limits.as_targets(metrics, "2s-720p")
    assert [target.limit for target in made] == [30.0, 12.0, 8192.0, 1.5, 0.5]
    default = TI2VBenchmarkTargets().as_targets(metrics, "2s-720p")
    assert [(t.name, t.comparison, t.limit, t.severity) for t in default] == [
        (t.name, t.comparison, t.limit, t.severity) for t in TARGETS
    ]


@pytest.mark.parametrize(
    ("values", "verdict", "reason"),
    [
        ([119.0, 100.0], VerdictValue.PASS, None),
        ([100.0, 120.0], VerdictValue.FAIL, "missed by 0 s"),
        ([100.0, 130.5], VerdictValue.FAIL, "missed by 10.5 s"),
        ([100.0, None], VerdictValue.NOT_MEASURED, "generation_s was not measured: it broke"),
        ([], VerdictValue.NOT_MEASURED, "generation_s was not measured: it broke"),
    ],
)
def test_the_worst_repeat_is_judged(values: list[float | None], verdict: VerdictValue, reason: str | None) -> None:
    """Strictly below the limit; one repeat without a value is enough for not measured."""
    target = TI2VBenchmarkTargets().as_targets(("generation_s",), "2s-720p")[0]
    found = judge(target, WORKLOADS["2s-720p"], values, "it broke")
    assert (found.verdict, found.reason, found.severity) == (verdict, reason, Severity.CRITICAL)


def test_a_missed_limit_fails_the_benchmark() -> None:
    """A load that takes longer than a nanosecond misses a limit of one."""
    benchmarks = WAN22PerformanceBenchmarks(TI2VBenchmarkTargets(model_load_time_max=1e-9), workload=SMALL)
    results = benchmarks.benchmark_ti2v_5b_model_loading(api_functions.load_nothing)
    assert results.verdict is RunState.TARGET_MISSED
    assert results.summary == "Of 1 targets 0 are met, 1 missed and 0 not measured."


def test_closures_get_what_they_ask_for(small: WAN22PerformanceBenchmarks) -> None:
    """Floats in [0, 1] are frames too; the first parameter is the model under any name."""
    seen: dict[str, Any] = {}

    def generator(pipe: str, seed: int, duration_s: float) -> Any:
        seen.update(pipe=pipe, seed=seed, duration_s=duration_s)
        return np.random.default_rng(seed).random((5, 64, 64, 3))

    results = small.run_comprehensive_ti2v_benchmark(lambda: "mine", generator)
    assert results.error is None
    assert seen == {"pipe": "mine", "seed": 42, "duration_s": SMALL.duration_s}


def test_the_declared_machine_is_compared_with_the_detected_one(tmp_path: Path) -> None:
    """What agrees is silent, what differs is said with its source, what is unknown is said to be unknown."""
    machine, card = detect(tmp_path), gpu("NVIDIA GeForce RTX 4080", 16_376)
    cpu = machine.cpu.model_copy(update=cpu_readings("AMD Ryzen Threadripper PRO 5995WX 64-Cores", 64))
    memory = MemoryProfile.model_validate(
        machine.memory.model_dump() | {"total_mib": Reading[int](value=128_700, source="psutil")}
    )
    machine = machine.model_copy(update={"cpu": cpu, "memory": memory, "gpus": [card]})
    assert declared().differences(machine, card) == []
    assert declared(cpu_cores=32, vram_gb=24, is_rtx_4080=False).differences(machine, card) == [
        "cpu_cores is declared as 32, and /proc/cpuinfo says 64.",
        "vram_gb is declared as 24, and nvml says 16.0 GiB.",
        "is_rtx_4080 is declared as False, and nvml says NVIDIA GeForce RTX 4080.",
    ]
    alone = machine.model_copy(update={"gpus": [], "gpu_reason": "no driver"})
    assert declared().differences(alone, None) == [
        "gpu_model is declared as NVIDIA GeForce RTX 4080 and could not be checked: no driver.",
        "vram_gb is declared as 16 and could not be checked: no driver.",
        "is_rtx_4080 is declared as True and could not be checked: no driver.",
    ]


def cpu_readings(model: str, cores: int) -> dict[str, Any]:
    source = "/proc/cpuinfo"
    readings = {
        "model": Reading[str](value=model, source=source),
        "physical_cores": Reading[int](value=cores, source=source),
    }
    assert readings.keys() <= CpuProfile.model_fields.keys()
    return readings


def gpu(name: str, total_mib: int) -> GpuProfile:
    missing = {
        field: Reading[Any].missing("nvml", "not asked")
        for field in GpuProfile.model_fields
        if field not in ("index", "state")
    }
    known = {
        "name": Reading[str](value=name, source="nvml"),
        "vram_total_mib": Reading[int](value=total_mib, source="nvml"),
    }
    return GpuProfile.model_validate({"index": 0} | {key: each.model_dump() for key, each in (missing | known).items()})
