"""One run through the session, without Prefect: the real model, and every way in which a run can go wrong."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from tests.worker.test_worker import FAULTY, faulty_spec
from wan22core.errors import DeviceBusyError, IncompatibleHardwareError, ModelNotFoundError
from wan22core.quality.gate import GatePolicy, for_gate
from wan22core.recipes import recipe
from wan22core.records import RepeatKind, RunRecord, RunState, Stage, StageRecord, StageStatus, VerdictValue
from wan22core.report.document import load_run
from wan22core.session.finish import assert_targets, build_record, collect_metrics, write_reports
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.locks import DeviceLock
from wan22core.session.order import generations
from wan22core.session.recording import Recording
from wan22core.session.run import BenchmarkSession
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec, Deadlines, Precision, Weights, Workload

TINY_SMALL = Workload(name="small", width=64, height=64, frames=5, steps=2)


def run(spec: BenchmarkSpec, checkpoint: Path) -> RunRecord:
    """A new run of ``checkpoint``."""
    settings = Settings()
    spec = spec.model_copy(update={"weights": Weights(model=str(checkpoint))})
    folder = new_run_folder(settings.runs_path, new_run_id())
    return run_in(Recording.new(folder, spec, "wan22 benchmark", interval_s=settings.sample_interval_s))


def run_in(recording: Recording) -> RunRecord:
    """The order of the stages, as the flow has it."""
    with BenchmarkSession(recording, Settings()) as session:
        session.spawn_worker()
        session.detect_hardware()
        session.prepare_weights()
        session.set_up_quantization()
        session.load_model()
        for kind, repeat in generations(session.spec):
            session.generate(kind, repeat)
        session.finish_measuring()
        metrics = collect_metrics(session)
        record = build_record(session, metrics, assert_targets(session, metrics))
        write_reports(session, record)
    assert load_run(recording.folder.path) == record
    return record


def generation(record: RunRecord, repeat: int) -> dict[Stage, StageRecord]:
    return {
        stage.stage: stage for stage in record.stages if (stage.kind, stage.repeat) == (RepeatKind.MEASURED, repeat)
    }


@pytest.mark.parametrize(
    "image_to_video", [pytest.param(False, marks=pytest.mark.slow), True]
)  # t2v: flows/test_cli.py
def test_the_real_model_runs_whole(tiny_checkpoint: Path, image_to_video: bool) -> None:
    """Text-to-video and image-to-video: believable records, all stages, the asked frames, every file."""
    workload = TINY_SMALL.model_copy(update={"image_to_video": image_to_video})
    spec = BenchmarkSpec(workload=workload, recipe=recipe("reference"), repeats=1, warmups=1, device="cpu")
    record = run(spec, tiny_checkpoint)
    assert record.integrity.failed == []
    assert (record.verdict, record.error) == (RunState.NOT_MEASURED, None)
    assert (Stage.ENCODE_IMAGE in generation(record, 0)) is image_to_video
    assert (record.labels.weights_source, record.labels.architecture) == ("random", "tiny")
    assert record.labels.precision_actual == "bfloat16"
    assert int(record.environment["threads"] or 0) >= 1, "read back from torch in the worker"
    assert record.environment["tf32"] == "products off, convolutions on", "torch's own, on a host left as it is"
    assert {target.verdict for target in record.targets} == {VerdictValue.NOT_MEASURED}
    assert record.targets[0].reason == "asserted for ti2v-5b 2s-720p, this is tiny small"
    assert [(row.kind, row.frames_produced) for row in record.repeats] == [
        (RepeatKind.WARMUP, 5),
        (RepeatKind.MEASURED, 5),
    ]
    assert [row.start_to_video_s is None for row in record.repeats] == [False, True]
    parts = [stage.component for stage in record.stages if stage.component is not None]
    assert parts == ["tokenizer", "scheduler", "transformer", "text_encoder", "vae"]
    assert {Path(path).name for path in record.files.values()} >= {"run.json", "report.html", "video.mp4"}
    assert [name for name, path in record.files.items() if not Path(path).is_file()] == []
    assert json.loads(Path(record.files["validation"]).read_text())["integrity"]


@pytest.mark.parametrize(
    ("fault", "stage", "code"),
    [
        ("nothing:denoise", Stage.DENOISE, "OUTPUT_MISSING"),
        ("nan:denoise", Stage.DENOISE, "OUTPUT_NOT_FINITE"),
        ("constant:denoise", Stage.DENOISE, "OUTPUT_CONSTANT"),
        ("frames:denoise", Stage.DENOISE, "OUTPUT_WRONG_FRAMES"),
        ("nothing:decode", Stage.DECODE, "OUTPUT_MISSING"),
        ("constant:decode", Stage.DECODE, "OUTPUT_CONSTANT"),
        ("still:decode", Stage.DECODE, "OUTPUT_CONSTANT"),
        ("frames:decode", Stage.DECODE, "OUTPUT_WRONG_FRAMES"),
        ("fail:encode", Stage.ENCODE, "STAGE_FAILED"),
        ("oom:decode", Stage.DECODE, "CUDA_OUT_OF_MEMORY"),
        ("segfault:decode", Stage.DECODE, "SEGMENTATION_FAULT"),
        ("hang:decode", Stage.DECODE, "TIMEOUT"),
    ],
)
def test_a_failure_has_a_name_and_never_becomes_a_time(
    tiny_checkpoint: Path, fault: str, stage: Stage, code: str
) -> None:
    """The run is broken, its records are whole, the report is there."""
    spec = faulty_spec(fault, repeats=1, warmups=0, deadlines=Deadlines(decode_s=1.5))
    record = run(spec, tiny_checkpoint)
    assert record.error is not None
    assert (record.verdict, record.error.code, record.error.stage) == (RunState.BROKEN, code, stage)
    assert record.integrity.failed == []
    assert [row.generation_s for row in record.repeats] == [None]
    stages = generation(record, 0)
    assert (stages[stage].status, stages[stage].wall_s) == (StageStatus.FAILED, None)
    assert stages[Stage.WRITE].status is StageStatus.NOT_RUN
    assert Path(record.files["report_html"]).is_file()


@pytest.mark.parametrize(("device", "name_is_known"), [("cpu", True), ("auto", False)])
def test_a_worker_that_hangs_at_its_start_is_reported(tiny_checkpoint: Path, device: str, name_is_known: bool) -> None:
    """Killed at its deadline, nothing else is run, the report is there; which device ``auto`` would be is not known."""
    engine = "tests.worker.engines:HangsAtImport"
    spec = faulty_spec(engine=engine, device=device, repeats=1, warmups=0, deadlines=Deadlines(start_s=3))
    record = run(spec, tiny_checkpoint)
    assert record.error is not None
    assert record.integrity.failed == []
    assert (record.verdict, record.error.code, record.error.stage) == (RunState.BROKEN, "TIMEOUT", Stage.START)
    assert (record.labels.device_name is not None) is name_is_known
    assert record.labels.weights_source == "unknown", "nothing was prepared for a worker that is not there"
    assert [(stage.stage, stage.status) for stage in record.stages[:3]] == [
        (Stage.START, StageStatus.FAILED),
        (Stage.LOAD, StageStatus.NOT_RUN),
        (Stage.ENCODE, StageStatus.NOT_RUN),
    ]
    assert Path(record.files["report_html"]).is_file()


def test_the_next_repeat_gets_a_new_worker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """One death costs one repeat: the model is loaded again, the rest is measured, and the run says so."""
    spec = faulty_spec("once:decode", repeats=2, warmups=0)
    workload = spec.workload.model_copy(update={"negative_prompt": str(tmp_path / "died")})
    record = run(spec.model_copy(update={"workload": workload}), tiny_checkpoint)
    assert [row.generation_s is None for row in record.repeats] == [True, False]
    assert (record.verdict, record.labels.attempts) == (RunState.BROKEN, 2)
    assert record.labels.comparable is False
    assert len([stage for stage in record.stages if stage.stage is Stage.START]) == 2


def test_a_worker_that_dies_every_time_is_not_started_for_ever(tiny_checkpoint: Path) -> None:
    """After two deaths the remaining repeats are not run."""
    record = run(faulty_spec("kill:decode", repeats=4, warmups=0), tiny_checkpoint)
    assert len([stage for stage in record.stages if stage.stage is Stage.START]) == 2
    assert generation(record, 3)[Stage.ENCODE].status is StageStatus.NOT_RUN


@pytest.mark.parametrize(
    ("fault", "code"),
    [("hang:quantize", "TIMEOUT"), ("unsupported", "UNSUPPORTED_QUANTIZATION"), ("fail:quantize", "STAGE_FAILED")],
)
def test_quantization_falls_back_from_clean_weights(tiny_checkpoint: Path, fault: str, code: str) -> None:
    """fp8 hangs, is unsupported or fails: int8 is loaded anew in a fresh worker, and the label says what was run."""
    asked = recipe("reference").model_copy(
        update={"transformer_precision": Precision.FP8, "fallbacks": (Precision.INT8, Precision.BF16)}
    )
    spec = faulty_spec(fault, recipe=asked, repeats=1, warmups=0, deadlines=Deadlines(quantize_s=1.5))
    record = run(spec, tiny_checkpoint)
    quantized = [stage for stage in record.stages if stage.stage is Stage.QUANTIZE]
    assert [(stage.status, stage.error_code, stage.attempt) for stage in quantized] == [
        (StageStatus.FAILED, code, 1),
        (StageStatus.OK, None, 2),
    ]
    assert (record.error, record.labels.fallback, record.labels.attempts) == (None, True, 2)
    assert (record.labels.precision_requested, record.labels.precision_actual) == ("fp8", "int8")
    assert for_gate(record, GatePolicy(), None, date(2026, 11, 24)).verdict is RunState.NOT_MEASURED


def test_out_of_memory_is_no_reason_for_another_precision(tiny_checkpoint: Path) -> None:
    """Nothing is loaded a second time: the run is broken by the first."""
    asked = recipe("reference").model_copy(
        update={"transformer_precision": Precision.FP8, "fallbacks": (Precision.INT8,)}
    )
    record = run(faulty_spec("oom:quantize", recipe=asked, repeats=1, warmups=0), tiny_checkpoint)
    assert (record.error.code if record.error else None, record.labels.fallback) == ("CUDA_OUT_OF_MEMORY", False)
    assert len([stage for stage in record.stages if stage.stage is Stage.LOAD and stage.component is None]) == 1


def test_without_a_fallback_left_the_run_is_broken(tiny_checkpoint: Path) -> None:
    """The generation stages are recorded as not run."""
    asked = recipe("reference").model_copy(update={"transformer_precision": Precision.FP8})
    record = run(faulty_spec("fail:quantize", recipe=asked, repeats=1, warmups=0), tiny_checkpoint)
    assert record.verdict is RunState.BROKEN
    assert generation(record, 0)[Stage.ENCODE].status is StageStatus.NOT_RUN


def test_a_device_that_is_not_there_is_refused(tiny_checkpoint: Path) -> None:
    """Before anything is measured, with the reason."""
    with pytest.raises(IncompatibleHardwareError, match="cuda:7"):
        run(faulty_spec(device="cuda:7"), tiny_checkpoint)


def test_a_checkpoint_that_is_not_there_is_refused() -> None:
    """The message says what may be given."""
    with pytest.raises(ModelNotFoundError, match="no/such/folder"):
        run(faulty_spec(engine=FAULTY), Path("no/such/folder"))


def test_one_gpu_is_for_one_run(tmp_path: Path) -> None:
    """The second is told who holds it; after the release it goes on."""
    first, second = DeviceLock(tmp_path), DeviceLock(tmp_path)
    first.acquire("GPU-1")
    with pytest.raises(DeviceBusyError, match="GPU-1"):
        second.acquire("GPU-1")
    first.release()
    second.acquire("GPU-1")
    second.release()
