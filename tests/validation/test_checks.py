"""The checks themselves: each passes here or says why it can't, and each can fail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders import make_labels, make_run_record
from tests.validation.results import BY_ID, SNAPSHOTS, answered, misses, result_of
from wan22core.history.store import HistoryStore
from wan22core.model.quantize import supported
from wan22core.model.quantize_preference import QuantizationPreference, prefer
from wan22core.planning.host_settings import host_settings
from wan22core.records import (
    Census,
    CheckVerdict,
    RepeatKind,
    RunRecord,
    Stage,
    StageRecord,
    StageStatus,
    VerdictValue,
)
from wan22core.settings import Settings
from wan22core.specs import Precision
from wan22core.validation import planned, rtx_4080_quantization, threadripper_pro
from wan22core.validation.case import Case
from wan22core.validation.context import Context, packaged

OF_THE_CARD = ("detection", "settings", "vram_plan", "vram_action", "performance")
OF_THE_WORKSTATION = ("detection", "settings", "numa", "memory_settings", "scaling_planned")
LOADS = ("rtx_4080.quantization_8bit", "rtx_4080.quantization_fallback")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(autouse=True)
def _weights_made_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_WEIGHTS_DIR", str(weights))


@pytest.mark.usefixtures("every_core")
@pytest.mark.parametrize("name", [name for name in BY_ID if name not in LOADS])
def test_every_check_passes_or_says_why_it_can_not(name: str) -> None:
    """On whatever machine the tests run: nothing fails, and what is not measured has its reason and a next step."""
    result = result_of(name)
    assert result.verdict in (CheckVerdict.PASS, CheckVerdict.NOT_MEASURED), result.reason
    if result.verdict is CheckVerdict.NOT_MEASURED:
        assert name in ("rtx_4080.vram_allocations", "rtx_4080.performance") or "others used" in str(result.reason)
        assert result.next
    else:
        assert any(each.held for each in result.observations)


@pytest.mark.timeout(240)
def test_eight_bits_are_in_force() -> None:
    """By the real engine and the real session; fp8 is the first of the chain, and is what is counted at its end."""
    if (reason := supported(torch.device("cpu"))[Precision.FP8]) is not None:
        pytest.skip(reason)
    eight = result_of("rtx_4080.quantization_8bit")
    assert eight.verdict is CheckVerdict.PASS, eight.reason
    assert [each.observed for each in eight.observations] == ["float8_e4m3fn", "int8"]
    chain = result_of("rtx_4080.quantization_fallback")
    assert chain.verdict is CheckVerdict.PASS, chain.reason
    assert [each.observed for each in chain.observations][-3:] == ["1", "ok", "float8_e4m3fn"]


@pytest.mark.timeout(240)
def test_a_chain_that_was_switched_off_passes() -> None:
    """Who prefers no quantization gets bf16 at once."""
    prefer(Settings().data_dir, QuantizationPreference.OFF, None)
    chain = result_of("rtx_4080.quantization_fallback")
    assert chain.verdict is CheckVerdict.PASS, chain.reason
    assert [each.observed for each in chain.observations][-3:] == ["1", "ok", "bfloat16"]


@pytest.mark.parametrize(
    ("ended", "code", "missed"),
    [
        ("bfloat16", "UNSUPPORTED_QUANTIZATION", []),
        ("int8", "UNSUPPORTED_QUANTIZATION", ["transformer at its end, by bytes"]),
        ("bfloat16", "TIMEOUT", ["fp8 is refused", "int8 is refused"]),
    ],
)
def test_refusals_are_judged_by_name(ended: str, code: str, missed: list[str]) -> None:
    """As on a device without 8-bit products: any other end of an attempt than its refusal is a miss."""
    common: dict[str, Any] = {"stage": Stage.QUANTIZE, "kind": RepeatKind.SETUP, "repeat": 0}
    attempts = [StageRecord(**common, status=StageStatus.FAILED, error_code=code)] * 2
    attempts.append(StageRecord(**common, status=StageStatus.OK))
    case = Case(Context.new("x", Settings()), deadline_s=1.0)
    tried = [Precision.FP8, Precision.INT8, Precision.BF16]
    rtx_4080_quantization._judge_chain(case, tried, attempts, ended)
    assert [each.what for each in case.misses] == missed


def test_a_cast_that_is_not_in_force_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The census counts what is there, whatever was asked for: an engine that makes float16 of everything."""
    part = Census(component="transformer", parameters=1, bytes_by_dtype={"float16": 2}, devices=["cpu"])
    answered(monkeypatch, rows=[{"refused": None, "census": [part.model_dump(mode="json")]}] * 4)
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
    """What its dumps don't say is not measured; a smaller one of that name has no ranges."""
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
    assert (small.verdict, small.reason) == (
        CheckVerdict.NOT_MEASURED, f"no Threadripper PRO of 32 cores and more in {tmp_path}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dumps", "name", "reason"),
    [("synthetic_threadripper-pro-5995wx", f"rtx_4080.{name}", "no GeForce RTX 4080") for name in OF_THE_CARD]
    + [("synthetic_rtx-4080", f"threadripper_pro.{name}", "no Threadripper PRO") for name in OF_THE_WORKSTATION]
    + [("synthetic_threadripper-pro-5995wx", "threadripper_pro.memory_settings", "no card of the table")],
)
def test_a_snapshot_never_stands_in_for_dumps(dumps: str, name: str, reason: str) -> None:
    """What was asked about is the machine of the folder: without the hardware there is nothing to say of it."""
    result = result_of(name, Context.new("x", Settings(), SNAPSHOTS / dumps))
    assert (result.verdict, f"{reason}" in str(result.reason)) == (CheckVerdict.NOT_MEASURED, True), result.reason
    assert not result.on_snapshot


@pytest.mark.parametrize(
    ("snapshot", "name", "passes"),
    [
        ("synthetic_threadripper-pro-5995wx_nps2", "threadripper_pro.numa", True),
        ("synthetic_threadripper-pro-5975wx", "threadripper_pro.numa", True),
        ("synthetic_threadripper-pro-5975wx", "threadripper_pro.scaling_planned", True),
        ("synthetic_threadripper-pro-5995wx", "threadripper_pro.scaling_planned", True),
        ("synthetic_threadripper-pro-5995wx_nps2", "threadripper_pro.numa", False),
        ("synthetic_threadripper-pro-5995wx", "threadripper_pro.scaling_planned", False),
    ],
)
def test_a_workstation_is_looked_at_itself(
    snapshot: str, name: str, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this machine is one, no snapshot is opened for what it can show itself."""
    context = Context.new("x", Settings())
    context.__dict__["machine"] = packaged(snapshot)[0]
    if not passes:
        wrong = {"numa_node": None, "numa_cpus": None, "threads": 16}
        monkeypatch.setattr(
            planned, "host_settings", lambda *a, **more: host_settings(*a, **more).model_copy(update=wrong)
        )
    result = result_of(name, context)
    assert (result.verdict is CheckVerdict.PASS) == passes, result.reason
    assert (result.looked_at, result.on_snapshot) == (["this machine"], False)


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
        ("threadripper_pro.scaling_planned", {"threads": 16}, "threads, doubled up to 32"),
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


def test_a_quantization_that_is_not_in_force_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that refuses nothing and leaves the weights in bf16."""
    part = Census(component="transformer", parameters=1, bytes_by_dtype={"bfloat16": 2}, devices=["cpu"])
    row = {"refused": None, "census": [part.model_dump(mode="json")]}
    answered(monkeypatch, rows=[row, row])
    found = misses(result_of("rtx_4080.quantization_8bit"))
    assert {f"transformer under {each}, by bytes" for each in ("fp8", "int8")} <= set(found)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_chain_that_ends_in_something_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the stages say of themselves, the bytes that are counted at the end decide."""
    monkeypatch.setattr(rtx_4080_quantization, "actual_precision", lambda _: "float32")
    assert "transformer at its end, by bytes" in misses(result_of("rtx_4080.quantization_fallback"))


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
        ({"environment": {"driver": "570.00"}}, None, "not_measured"),
        ({"environment": {"driver": "570.00"}}, VerdictValue.FAIL, "not_measured"),
        ({"environment": {"torch": "2.0"}}, None, "not_measured"),
        ({"environment": {"commit": "0" * 40}}, None, "not_measured"),
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
    """By the history: no other card's run, none under a ceiling, none that fell back, none of another day's programs;
    critical targets decide.
    """
    changes, context = dict(changes), Context.new("x", Settings())
    machine, _ = packaged("synthetic_rtx-4080")
    context.__dict__["machine"] = machine
    uuid = machine.gpus[0].uuid.value
    software = context.here.software
    today = {"driver": machine.gpus[0].driver.value, "commit": software.commit.value}
    today |= {name: reading.value for name, reading in software.packages.items()}
    environment = {**today, **changes.pop("environment", {})}
    record = run_on(**{"name": "NVIDIA GeForce RTX 4080", "uuid": uuid, **changes})
    record = record.model_copy(update={"environment": environment})
    if missed is not None:
        first = record.targets[0].model_copy(update={"verdict": missed})
        record = record.model_copy(update={"targets": [first, *record.targets[1:]]})
    HistoryStore(context.settings.history_url).add(record)
    result = result_of("rtx_4080.performance", context)
    assert result.verdict.value == verdict, result.reason
    if verdict == "fail":
        assert misses(result) == ["model_load_time < 300 s"]
    if environment != today:
        assert str(result.reason).startswith("the last run was under ")
    facts = {each.what: each.observed for each in result.observations}
    if verdict != "not_measured" or environment != today:
        assert (facts["made at"], facts["driver of the run"]) == ("2026-11-24T10:00:00+00:00", environment["driver"])
