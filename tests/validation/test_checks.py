"""The checks themselves: each passes here or says why it can't, and each can fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_labels, make_run_record
from wan22core.hardware.detect import detect
from wan22core.history.store import HistoryStore
from wan22core.planning.host_settings import host_settings
from wan22core.records import CheckResult, CheckVerdict, RunRecord, VerdictValue
from wan22core.settings import Settings
from wan22core.telemetry.health import HealthMonitor
from wan22core.telemetry.thresholds import WATCHES
from wan22core.validation import planned, processor_load, rtx_4080, rtx_4080_quantization, threadripper_pro
from wan22core.validation.context import Context, packaged
from wan22core.validation.registry import checks
from wan22core.validation.runner import run

SNAPSHOTS = Path(rtx_4080.__file__).parent / "snapshots"
BY_ID = {check.id: check for check in checks()}
WORKSTATION = "from a snapshot: synthetic_threadripper-pro-5995wx"
LOADS = ("rtx_4080.quantization_8bit", "rtx_4080.quantization_fallback")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(autouse=True)
def _weights_made_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_WEIGHTS_DIR", str(weights))


def result_of(name: str, context: Context | None = None) -> CheckResult:
    return run(BY_ID[name], context or Context.new("20261124T100000-abcdef", Settings()))


def misses(result: CheckResult) -> list[str]:
    assert result.verdict is CheckVerdict.FAIL, result.reason
    return [each.what for each in result.observations if each.held is False]


@pytest.mark.parametrize("name", [name for name in BY_ID if name not in LOADS])
def test_every_check_passes_or_says_why_it_can_not(name: str) -> None:
    """On whatever machine the tests run: nothing fails, and what is not measured has its reason and a next step."""
    result = result_of(name)
    assert result.verdict in (CheckVerdict.PASS, CheckVerdict.NOT_MEASURED), result.reason
    if result.verdict is CheckVerdict.NOT_MEASURED:
        assert name in ("rtx_4080.vram_allocations", "rtx_4080.performance") or "that others had" in str(result.reason)
        assert result.next
    else:
        assert any(each.held for each in result.observations)


@pytest.mark.timeout(240)
def test_refused_precisions_are_told_and_fall_back() -> None:
    """By the real engine and the real session: fp8 and int8 are refused by name, bf16 is what is then counted."""
    eight = result_of("rtx_4080.quantization_8bit")
    assert (eight.verdict, "can't be quantized to fp8" in str(eight.reason)) == (CheckVerdict.NOT_MEASURED, True)
    chain = result_of("rtx_4080.quantization_fallback")
    assert chain.verdict is CheckVerdict.PASS, chain.reason
    assert [each.observed for each in chain.observations][-5:] == [
        "3", "UNSUPPORTED_QUANTIZATION", "UNSUPPORTED_QUANTIZATION", "ok", "bfloat16",
    ]  # fmt: skip


def test_a_cast_that_is_not_in_force_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The census counts what is there, whatever was asked for."""
    loaded: Callable[..., list[dict[str, Any]]] = rtx_4080_quantization._loaded
    monkeypatch.setattr(
        rtx_4080_quantization, "_loaded", lambda case, asked: loaded(case, list(asked)[:1]) * len(list(asked))
    )
    assert misses(result_of("rtx_4080.quantization_casts")) == [
        f"transformer under {name}, by bytes" for name in ("bf16", "fp32", "none")
    ]


def test_a_card_that_is_read_otherwise_fails(tmp_path: Path) -> None:
    """A folder of dumps takes the machine's place where it holds the card; what they don't say is not measured."""
    text = (SNAPSHOTS / "synthetic_rtx-4080" / "nvidia-smi-query-gpu.csv").read_text()
    (tmp_path / "query.csv").write_text(text.replace("16376", "32760").replace("8.9", "8.6"))
    result = result_of("rtx_4080.detection", Context.new("x", Settings(), tmp_path))
    assert misses(result) == ["memory, MiB", "compute capability"]
    assert result.looked_at == [f"the dumps in {tmp_path}"]
    (tmp_path / "query.csv").write_text(text.replace("8.9", "[N/A]"))
    result = result_of("rtx_4080.detection", Context.new("x", Settings(), tmp_path))
    assert (result.verdict, "compute capability is unknown" in str(result.reason)) == (CheckVerdict.NOT_MEASURED, True)


def test_a_workstation_that_is_read_otherwise_fails(tmp_path: Path) -> None:
    """What its dumps don't say is not measured; a smaller one of that name has no ranges: the snapshots count."""
    text = (SNAPSHOTS / "synthetic_threadripper-pro-5995wx" / "lscpu.json").read_text()
    (tmp_path / "lscpu.json").write_text(text)
    whole = result_of("threadripper_pro.detection", Context.new("x", Settings(), tmp_path))
    assert (whole.verdict, whole.reason) == (
        CheckVerdict.NOT_MEASURED,
        "AMD Ryzen Threadripper PRO 5995WX 64-Cores: memory, MiB is unknown: no source says it",
    )
    two_sockets = re.sub(r'("Socket\(s\):",\s*"data": )"1"', r'\1"2"', text.replace('"64"', '"32"'))
    (tmp_path / "lscpu.json").write_text(two_sockets)
    other = result_of("threadripper_pro.detection", Context.new("x", Settings(), tmp_path))
    assert misses(other) == ["AMD Ryzen Threadripper PRO 5995WX 64-Cores: sockets"]
    (tmp_path / "lscpu.json").write_text(text.replace('"64"', '"16"').replace('"128"', '"32"'))
    small = result_of("threadripper_pro.detection", Context.new("x", Settings(), tmp_path))
    assert (small.verdict, small.looked_at[-1]) == (CheckVerdict.PASS, WORKSTATION)


@pytest.mark.parametrize(
    ("name", "changed", "missed"),
    [
        ("rtx_4080.settings", {"vae_tile": 384}, "VAE tile, pixels"),
        ("rtx_4080.settings", {"memory_fraction": 0.8}, "memory fraction"),
        ("rtx_4080.settings", {"working_precision": "fp16"}, "working precision"),
        ("threadripper_pro.settings", {"threads": 64}, "5975wx: threads"),
        ("threadripper_pro.settings", {"workers": 3}, "5975wx: workers"),
        ("threadripper_pro.settings", {"preprocessing_threads": 3}, "5975wx: preprocessing threads"),
        ("threadripper_pro.numa", {"numa_node": 0}, "two nodes: bound to the node of the card"),
        ("threadripper_pro.scaling_planned", {"threads": 16}, "threads, 64 cores by 32"),
        ("threadripper_pro.memory_settings", {"memory_fraction": 0.97}, "5975wx: memory fraction"),
        ("threadripper_pro.monotone", {"workers": 4}, "workers grows from the smallest to the largest"),
    ],
)
def test_a_setting_out_of_its_range_fails(
    name: str, changed: dict[str, Any], missed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning that gives something else is noticed."""

    def otherwise(*arguments: Any, **more: Any) -> Any:
        return host_settings(*arguments, **more).model_copy(update=changed)

    monkeypatch.setattr(planned, "host_settings", otherwise)
    monkeypatch.setattr(threadripper_pro, "host_settings", otherwise)
    assert missed in misses(result_of(name))


def test_a_plan_beyond_the_card_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks that are said to fit are held against the card's own memory."""
    monkeypatch.setattr(rtx_4080, "highest_mib", lambda _: 15_900.0)
    result = result_of("rtx_4080.vram_plan")
    assert "peak of bf16_group_leaf with its safety, MiB" in misses(result)


def test_a_monitor_that_does_nothing_at_90_percent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = [watch for watch in WATCHES if watch.quantity != "vram"]
    monkeypatch.setattr(rtx_4080, "HealthMonitor", partial(HealthMonitor, watches=quiet))
    assert misses(result_of("rtx_4080.vram_action")) == ["actions", "use at the first action, %", "alerts"]


@pytest.mark.parametrize(
    ("busy", "waiting", "verdict"),
    [(1.0, 0.0, "pass"), (0.8, None, "pass"), (0.7, 0.05, "fail"), (0.7, None, "fail"), (0.5, 0.5, "not_measured")],
)
def test_idle_threads_fail_and_crowded_ones_say_nothing(
    busy: float, waiting: float | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores that were wanted and not had are another's doing."""

    def rows(_case: object, threads: list[int], *_: object) -> list[dict[str, Any]]:
        used = threads[0]
        scaled = None if waiting is None else waiting * used
        return [{"threads": used, "busy_cores": busy * used, "waiting_cores": scaled, "products_s": 1.0}]

    monkeypatch.setattr(processor_load, "_rows", rows)
    assert result_of("threadripper_pro.cpu_utilisation").verdict.value == verdict


@pytest.mark.parametrize(
    ("speedup", "waiting", "verdict"),
    [(2.0, 0.0, "pass"), (0.9, 0.0, "fail"), (0.9, None, "fail"), (0.9, 0.4, "not_measured")],
)
def test_cores_that_bring_nothing_fail(
    speedup: float, waiting: float | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best round of each counts; half of the cores' worth is asked for."""

    def rows(_case: object, threads: list[int], _s: float, rounds: int) -> list[dict[str, Any]]:
        each = {"busy_cores": 1.0, "waiting_cores": waiting}
        best = {1: 10.0, threads[1]: 10.0 * speedup * threads[1] / 2}
        slow = [{"threads": used, "products_s": rate / 3, **each} for used, rate in best.items()] * (rounds - 1)
        return slow + [{"threads": used, "products_s": rate, **each} for used, rate in best.items()]

    monkeypatch.setattr(processor_load, "_rows", rows)
    context = Context.new("x", Settings())
    cpu = packaged("synthetic_threadripper-pro-5975wx")[0].cpu
    context.__dict__["here"] = detect(Settings().data_dir).model_copy(update={"cpu": cpu})
    assert result_of("threadripper_pro.scaling_measured", context).verdict.value == verdict


def test_one_core_can_not_scale() -> None:
    context = Context.new("x", Settings())
    cpu = packaged("synthetic_threadripper-pro-5975wx")[0].cpu
    one = cpu.model_copy(update={"physical_cores": cpu.physical_cores.model_copy(update={"value": 1})})
    context.__dict__["here"] = detect(Settings().data_dir).model_copy(update={"cpu": one})
    result = result_of("threadripper_pro.scaling_measured", context)
    assert (result.verdict, result.reason) == (CheckVerdict.NOT_MEASURED, "this machine has one core to use")


def test_settings_that_stay_behind_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force afterwards is compared with what was there before, item by item."""
    judge = processor_load._judge

    def stained(case: Any, name: str, settings: Any, row: dict[str, Any]) -> None:
        judge(case, name, settings, {**row, "after": {**row["after"], "threads": 99}})

    monkeypatch.setattr(processor_load, "_judge", stained)
    assert misses(result_of("threadripper_pro.settings_applied")) == ["planned: afterwards", "changed: afterwards"]


def run_on(name: str, uuid: str | None, **changes: Any) -> RunRecord:
    """A run of the real model on the target workload, with all targets met."""
    labels = make_labels(cuda=True, device_name=name, device_uuid=uuid, **changes)
    record = make_run_record(cuda=True, labels=labels)
    met = [each.model_copy(update={"verdict": VerdictValue.PASS}) for each in record.targets]
    return record.model_copy(update={"targets": met})


@pytest.mark.parametrize(
    ("changes", "missed", "verdict"),
    [
        ({}, None, "pass"),
        ({}, VerdictValue.FAIL, "fail"),
        ({}, VerdictValue.NOT_MEASURED, "not_measured"),
        ({"emulated": True, "vram_limit_mib": 12_288}, None, "not_measured"),
        ({"fallback": True}, None, "not_measured"),
        ({"uuid": "GPU-another"}, None, "not_measured"),
        ({"name": "NVIDIA GeForce RTX 4090"}, None, "not_measured"),
    ],
)
def test_performance_is_that_of_a_run_on_this_very_card(
    changes: dict[str, Any], missed: VerdictValue | None, verdict: str
) -> None:
    """By the history: no other card's run, none under a ceiling, none that fell back; critical targets decide."""
    context = Context.new("x", Settings())
    machine, _ = packaged("synthetic_rtx-4080")
    context.__dict__["machine"] = machine
    uuid = machine.gpus[0].uuid.value
    record = run_on(**{"name": "NVIDIA GeForce RTX 4080", "uuid": uuid, **changes})
    if missed is not None:
        first = record.targets[0].model_copy(update={"verdict": missed})
        record = record.model_copy(update={"targets": [first, *record.targets[1:]]})
    HistoryStore(context.settings.history_url).add(record)
    result = result_of("rtx_4080.performance", context)
    assert result.verdict.value == verdict, result.reason
    if verdict == "fail":
        assert misses(result) == ["model_load_time < 300 s"]
