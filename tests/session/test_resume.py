"""A run whose process was killed goes on from its last finished stage."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.builders import make_spec
from tests.session.test_session import TINY_SMALL, generation, run_in
from wan22core.errors import UnknownNameError, UserInputError
from wan22core.quality.gate import GatePolicy, for_gate
from wan22core.recipes import recipe
from wan22core.records import RepeatKind, RunState, Stage, StageRecord, StageStatus
from wan22core.recovery.journal import is_unfinished
from wan22core.session.folder import RunFolder, new_run_folder, new_run_id, unfinished_run
from wan22core.session.recording import Recording
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec, Weights
from wan22core.telemetry.trace import read_trace

_RUN = """
import sys
from pathlib import Path
from tests.builders import make_spec
from tests.session.test_session import run_in
from wan22core.session.folder import RunFolder
from wan22core.session.recording import Recording
from wan22core.specs import BenchmarkSpec
folder = Path(sys.argv[1])
spec = BenchmarkSpec.model_validate_json((folder / "spec.json").read_bytes())
run_in(Recording.new(RunFolder(run_id=folder.name, path=folder), spec, "wan22 benchmark", interval_s=0.05))
"""


def killed_in_its_first_decode(spec: BenchmarkSpec, tmp_path: Path) -> RunFolder:
    """A process of its own runs the real model and is killed with -9 when the decode has begun."""
    mark = tmp_path / "decode-began"
    workload = spec.workload.model_copy(update={"negative_prompt": str(mark)})
    spec = spec.model_copy(update={"engine": "tests.worker.cut_off:CutOffEngine", "workload": workload})
    folder = new_run_folder(Settings().runs_path, new_run_id())
    (folder.path / "spec.json").write_text(spec.model_dump_json())
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(folder.path)])
    until = time.monotonic() + 120
    while not mark.exists():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return folder


def test_a_killed_run_decodes_the_latents_that_it_saved(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Nothing is encoded or denoised again, the video is the one of a run that was not cut off, rows say what was."""
    spec = BenchmarkSpec(
        workload=TINY_SMALL,
        weights=Weights(model=str(tiny_checkpoint)),
        recipe=recipe("reference"),
        repeats=2,
        warmups=0,
        device="cpu",
        keep_frames=True,
    )
    folder = killed_in_its_first_decode(spec, tmp_path)
    assert is_unfinished(folder.path)
    before = read_trace(folder.trace).samples
    recording = Recording.going_on(unfinished_run(Settings().runs_path, folder.run_id), interval_s=0.05)
    latents = folder.latents.stat().st_mtime_ns
    record = run_in(recording)
    recording.complete()
    assert (record.error, record.integrity.failed, is_unfinished(folder.path)) == (None, [], False)
    first, second = generation(record, 0), generation(record, 1)
    done_before = (Stage.ENCODE, Stage.DENOISE, Stage.SAVE_LATENTS)
    assert {each: stage.resumed for each, stage in first.items()} == (
        dict.fromkeys(done_before, False) | dict.fromkeys((Stage.DECODE, Stage.WRITE), True)
    )
    assert set(second) == set(first)
    assert folder.latents.stat().st_mtime_ns > latents, "the second video saved its own"
    assert [stage.repeat for stage in record.stages if stage.stage is Stage.LOAD and stage.component is None] == [0, 1]
    assert (record.labels.resumed, record.labels.attempts, record.labels.comparable) == (True, 2, False)
    assert for_gate(record, GatePolicy(), None, datetime.now(UTC).date()).verdict is RunState.NOT_MEASURED
    times = [(stage.started_s, stage.ended_s) for stage in record.stages if stage.component is None]
    assert times == sorted(times), "one clock over both processes"
    assert recording.sampler.samples[: len(before)] == list(before)
    assert read_trace(folder.trace).samples == tuple(recording.sampler.samples)

    assert Path(record.spec.workload.negative_prompt).exists(), "the mark is there: nothing hangs"
    whole = new_run_folder(Settings().runs_path, new_run_id())
    run_in(Recording.new(whole, record.spec.model_copy(update={"repeats": 1}), "wan22 benchmark", interval_s=0.05))
    assert whole.latents.read_bytes() == folder.latents.read_bytes()
    assert whole.frames.read_bytes() == folder.frames.read_bytes()


def test_only_a_run_that_was_cut_off_can_go_on(tmp_path: Path) -> None:
    """Another name gets the names of those that were."""
    with pytest.raises(UnknownNameError, match="no run 'x'"):
        unfinished_run(tmp_path, "x")
    with pytest.raises(UnknownNameError):
        unfinished_run(tmp_path / "runs", f"../{tmp_path.name}")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "run.json").touch()
    with pytest.raises(UnknownNameError, match="is finished"):
        unfinished_run(tmp_path, "done")


def begun(tmp_path: Path) -> RunFolder:
    """A run that was killed after its load."""
    folder = new_run_folder(tmp_path / "runs", "r1")
    recording = Recording.new(folder, make_spec(), "wan22 benchmark", interval_s=0.1)
    recording.add(StageRecord(stage=Stage.LOAD, kind=RepeatKind.SETUP, repeat=0, status=StageStatus.OK, ended_s=5.0))
    recording.close()
    return folder


@pytest.mark.parametrize("trace", [b"", b'{"header"', b"garbage\n\xff\n"])
def test_the_journal_alone_decides(tmp_path: Path, trace: bytes) -> None:
    """A trace that a kill left empty, or that can't be read, costs its samples and no stage."""
    folder = begun(tmp_path)
    folder.trace.write_bytes(trace)
    recording = Recording.going_on(folder, interval_s=0.1)
    assert ([stage.stage for stage in recording.stages], recording.sampler.samples) == ([Stage.LOAD], [])
    recording.close()


def test_an_id_is_given_once(tmp_path: Path) -> None:
    """A second run of that name would take the first one's samples for its own."""
    begun(tmp_path)
    with pytest.raises(UserInputError, match="a run r1 already"):
        new_run_folder(tmp_path / "runs", "r1")


def test_what_never_measured_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    """A run that was refused at its start is not offered for a resume."""
    folder = new_run_folder(tmp_path / "runs", "r1")
    recording = Recording.new(folder, make_spec(), "wan22 benchmark", interval_s=0.1)
    recording.add(StageRecord(stage=Stage.START, kind=RepeatKind.SETUP, repeat=0, status=StageStatus.OK))
    recording.close()
    assert not is_unfinished(folder.path)
