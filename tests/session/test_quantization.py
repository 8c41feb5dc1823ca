"""Quantized runs through the session: real modules on ``tiny``, a real hang, a real fallback, a user's preference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.session.test_session import TINY_SMALL, run
from tests.worker.test_worker import gone
from wan22core.errors import UserInputError
from wan22core.model import quantize
from wan22core.model.quantize_preference import (
    QuantizationPreference,
    QuantizationPreferences,
    load_preferences,
    prefer,
)
from wan22core.planning.quantization import plan_quantization
from wan22core.recipes import recipe
from wan22core.records import Progress, RunRecord, Stage, StageRecord, StageStatus
from wan22core.report.markdown import to_markdown
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec, Deadlines, Precision
from wan22core.targets import RecipeClass
from wan22core.worker.client import ModelWorker

HANGS = "tests.model.quantize_engines:HangsWhileQuantizing"
OFF, INT8, FP8 = QuantizationPreference.OFF, QuantizationPreference.INT8, QuantizationPreference.FP8


def spec_of(*chain: Precision, **changes: object) -> BenchmarkSpec:
    """One repeat of the small workload; ``chain`` is the asked precision and its fallbacks."""
    asked = recipe("reference").model_copy(
        update={"transformer_precision": chain[0], "fallbacks": chain[1:], "recipe_class": RecipeClass.QUANTIZED}
    )
    spec = BenchmarkSpec(workload=TINY_SMALL, recipe=asked, repeats=1, warmups=0, device="cpu")
    return spec.model_copy(update=changes)


def quantizations(record: RunRecord) -> list[StageRecord]:
    return [stage for stage in record.stages if stage.stage is Stage.QUANTIZE]


def video_and_latents(record: RunRecord) -> tuple[bytes, bytes]:
    return Path(record.files["video"]).read_bytes(), Path(record.files["latents"]).read_bytes()


@pytest.mark.parametrize(("method", "dtype"), [(Precision.INT8, "int8"), (Precision.FP16, "float16")])
def test_a_quantized_run_is_whole(tiny_checkpoint: Path, method: Precision, dtype: str) -> None:
    """A verified video; what was run is counted, and is what was asked for."""
    if (reason := quantize.supported(torch.device("cpu"))[method]) is not None:
        pytest.skip(reason)
    record = run(spec_of(method), tiny_checkpoint)
    assert (record.error, record.integrity.failed, record.labels.fallback) == (None, [], False)
    assert (record.labels.precision_requested, record.labels.precision_actual) == (method.value, dtype)
    assert record.repeats[-1].frames_produced == TINY_SMALL.frames


def test_a_hang_ends_at_its_deadline_and_the_fallback_is_a_clean_run(tiny_checkpoint: Path) -> None:
    """Three blocks are quantized when it hangs: half a second after its deadline it is over, and nothing of it is left.

    The fallback loads clean weights in a fresh worker: video and latents are those of a run that asked for bf16, to the
    bit.
    """
    spec = spec_of(Precision.INT8, Precision.BF16, engine=HANGS, deadlines=Deadlines(quantize_s=1.0))
    record = run(spec, tiny_checkpoint)
    hung, fallen_back = quantizations(record)
    assert (hung.status, hung.error_code, fallen_back.status) == (StageStatus.FAILED, "TIMEOUT", StageStatus.OK)
    assert hung.started_s is not None and hung.ended_s is not None
    assert 1.0 <= hung.ended_s - hung.started_s < 1.5
    labels = record.labels
    assert (labels.precision_requested, labels.precision_actual, labels.fallback) == ("int8", "bfloat16", True)
    clean = run(spec_of(Precision.BF16), tiny_checkpoint)
    assert video_and_latents(record) == video_and_latents(clean)
    assert quantizations(clean)[0].attempt == 1


def test_fp16_accumulation_falls_back_where_there_is_none(tiny_checkpoint: Path) -> None:
    """A CPU has no switch for it: bf16 is run, and the setting is shown as it was read back."""
    spec = spec_of(Precision.FP16, Precision.BF16)
    asked = spec.recipe.model_copy(update={"fp16_accumulation": True})
    record = run(spec.model_copy(update={"recipe": asked}), tiny_checkpoint)
    assert [stage.error_code for stage in quantizations(record)] == ["UNSUPPORTED_QUANTIZATION", None]
    assert (record.labels.precision_actual, record.labels.fallback, record.error) == ("bfloat16", True, None)
    (row,) = [each for each in record.settings if each.name == "fp16_accumulation"]
    assert (row.asked, row.read_back, row.held) == ("on", "off", False)


def test_a_user_can_cancel_a_quantization(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C arrives in the parent, where the progress does; the worker is ended by leaving its context."""
    heard: list[Progress] = []

    def cancel(progress: Progress) -> None:
        heard.append(progress)
        if progress.stage == "quantize" and progress.bytes_done:
            raise KeyboardInterrupt

    spec = spec_of(Precision.INT8, engine=HANGS)
    pid: int | None = None
    with pytest.raises(KeyboardInterrupt), ModelWorker(tmp_path / "worker.log", cancel) as worker:
        worker.spawn()
        pid = worker.pid
        worker.start({"spec": spec.model_dump(mode="json")})
        worker.stage("load", 60, checkpoint=str(tiny_checkpoint))
        worker.stage("quantize", 60, precision="int8")
    assert pid is not None and gone(pid)
    assert 0 < (heard[-1].bytes_done or 0) < (heard[-1].bytes_total or 0)


def test_off_is_honoured(tiny_checkpoint: Path) -> None:
    """A recipe that quantizes runs its working precision; labels and reports say so, and no baseline takes it."""
    prefer(Settings().data_dir, OFF, str(tiny_checkpoint))
    record = run(spec_of(Precision.INT8, Precision.BF16), tiny_checkpoint)
    labels = record.labels
    assert (labels.precision_requested, labels.precision_actual) == ("int8", "bfloat16")
    assert (labels.attempts, labels.fallback, labels.comparable) == (1, True, False)
    (remark,) = record.remarks
    assert remark.startswith("The recipe tries int8, then bf16; bf16 is what the preference off for /")
    assert "int8 was asked for and bfloat16 was run." in to_markdown(record)
    assert "the preference off for" in to_markdown(record)


@pytest.mark.parametrize(
    ("preference", "chain", "tried"),
    [
        (None, ("fp8", "int8", "bf16"), ("fp8", "int8", "bf16")),
        (OFF, ("fp8", "int8", "bf16"), ("bf16",)),
        (OFF, ("fp8",), ("bf16",)),
        (OFF, ("bf16", "int8"), ("bf16",)),
        (OFF, ("fp16", "bf16"), ("fp16", "bf16")),
        (INT8, ("fp8", "int8", "bf16"), ("int8", "fp8", "bf16")),
        (INT8, ("fp8", "bf16"), ("int8", "fp8", "bf16")),
        (FP8, ("fp8", "bf16"), ("fp8", "bf16")),
        (INT8, ("bf16", "fp8"), ("bf16", "fp8")),
    ],
)
def test_a_preference_changes_what_is_tried(
    preference: QuantizationPreference | None, chain: tuple[str, ...], tried: tuple[str, ...]
) -> None:
    """Off removes what quantizes; a method comes first where the recipe quantizes; a remark only where it differs."""
    plan = plan_quantization(spec_of(*map(Precision, chain)), 1.0, preference)
    assert tuple(attempt.precision.value for attempt in plan.attempts) == tried
    assert (plan.requested.value, plan.remark is not None) == (chain[0], tried != chain)


def test_preferences_are_kept_for_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until they are changed; a folder is one model however it is written; what is forgotten follows the rest."""
    assert load_preferences(tmp_path) == QuantizationPreferences()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    prefer(tmp_path, OFF, None)
    prefer(tmp_path, FP8, "model")
    kept = prefer(tmp_path, INT8, "Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert load_preferences(tmp_path) == kept
    models = ("ti2v-5b", str(tmp_path / "model"), "./model", "Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert [kept.of(model) for model in models] == [OFF, FP8, FP8, INT8]
    assert prefer(tmp_path, None, "./model").of("model") is OFF
    assert prefer(tmp_path, None, None).of("model") is None
    assert load_preferences(tmp_path).of(models[-1]) is INT8


def test_damaged_preferences_are_not_taken_for_none(tmp_path: Path) -> None:
    """Somebody said off: a run must not quantize because the file can't be read."""
    (tmp_path / "quantization.json").write_text('{"for_all": "of')
    with pytest.raises(UserInputError, match=r"quantization\.json can't be understood"):
        load_preferences(tmp_path)


def test_preferences_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept is shown; a method that there is not is an input error."""
    from click import UsageError

    from flows.cli.main import cli

    def wan22(*arguments: str) -> str:
        cli.main(["weights", "prefer", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    assert wan22("off") == "every model: off\n"
    assert wan22("int8", "--model", "ti2v-5b") == "ti2v-5b: int8\nevery other model: off\n"
    assert json.loads(wan22("none", "--json")) == {"for_all": None, "by_model": {"ti2v-5b": "int8"}}
    assert load_preferences(Settings().data_dir).of("tiny") is None
    with pytest.raises(UsageError, match="int4"):
        wan22("int4")
