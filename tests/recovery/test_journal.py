"""What a run has done so far, on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.builders import make_spec
from wan22core.errors import DeviceBusyError, UserInputError
from wan22core.records import RepeatKind, Stage, StageRecord, StageStatus
from wan22core.recovery.journal import FILE, Journal, JournalHeader, SavedRun, is_unfinished, read_journal

HEADER = JournalHeader(
    run_id="r1", created_at=datetime(2026, 11, 24, tzinfo=UTC), command="wan22 benchmark", spec=make_spec()
)
M, W, S = RepeatKind.MEASURED, RepeatKind.WARMUP, RepeatKind.SETUP
TO_LATENTS = [Stage.ENCODE, Stage.DENOISE, Stage.SAVE_LATENTS]
WHOLE = [*TO_LATENTS, Stage.DECODE, Stage.WRITE]


def stage(stage: Stage, kind: RepeatKind, repeat: int = 0, status: StageStatus = StageStatus.OK) -> StageRecord:
    return StageRecord(stage=stage, kind=kind, repeat=repeat, status=status, wall_s=1.0)


LOAD = [stage(Stage.START, S), stage(Stage.LOAD, S)]
WARMUP = [stage(each, W) for each in WHOLE]


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    """A later process gets the header and the stages, and goes on behind them."""
    journal = Journal.create(tmp_path, HEADER)
    journal.append(LOAD)
    journal.close()
    again, saved = Journal.reopen(tmp_path)
    assert saved == SavedRun(header=HEADER, stages=LOAD)
    again.append(WARMUP)
    again.close()
    assert read_journal(tmp_path / FILE).stages == [*LOAD, *WARMUP]
    again.remove()
    assert (is_unfinished(tmp_path), list(tmp_path.iterdir())) == (False, [])


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """In the last line, wherever: it is there whole, or not at all, and what follows stands on its own line."""
    journal = Journal.create(tmp_path, HEADER)
    journal.append(LOAD)
    journal.close()
    data = (tmp_path / FILE).read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    for length in (*range(last, len(data), 37), len(data) - 1):
        (tmp_path / FILE).write_bytes(data[:length])
        again, saved = Journal.reopen(tmp_path)
        again.append(LOAD[1:])
        again.close()
        assert saved.stages == LOAD[:1]
        assert read_journal(tmp_path / FILE).stages == LOAD


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A run that still runs is not taken over."""
    journal = Journal.create(tmp_path, HEADER)
    with pytest.raises(DeviceBusyError, match="still running"):
        Journal.reopen(tmp_path)
    journal.close()
    Journal.reopen(tmp_path)[0].close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no run"),
        (b"garbage\n", "Line 1 .* no JournalHeader"),
        (HEADER.model_dump_json().encode() + b"\n{}\n", "Line 2 .* no StageRecord"),
        (b"\xff\xfe\n", "can't be read"),
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """In a sentence with the line, and the run can be looked at again afterwards: no lock stays."""
    (tmp_path / FILE).write_bytes(content)
    for _ in range(2):
        with pytest.raises(UserInputError, match=words):
            Journal.reopen(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize(
    ("stages", "kept"),
    [
        ([*LOAD, *WARMUP], [*LOAD, *WARMUP]),
        ([*LOAD, *(stage(each, M) for each in TO_LATENTS)], [*LOAD, *(stage(each, M) for each in TO_LATENTS)]),
        ([*LOAD, *(stage(each, M) for each in WHOLE[:4])], [*LOAD, *(stage(each, M) for each in TO_LATENTS)]),
        ([*LOAD, *(stage(each, M) for each in WHOLE[:2])], LOAD),
        ([*LOAD, stage(Stage.GENERATE, M)], LOAD),
        ([stage(Stage.LOAD, S, status=StageStatus.FAILED)], []),
    ],
    ids=["whole", "latents saved", "frames are lost", "no latents", "own functions", "failed"],
)
def test_what_need_not_run_again(stages: list[StageRecord], kept: list[StageRecord]) -> None:
    """Whole videos, and up to its latents the one that was cut off."""
    assert SavedRun(header=HEADER, stages=stages).finished() == kept


def test_what_gave_way_stays_in_the_record() -> None:
    """A precision that failed before another one was loaded; a last load that failed is tried again."""
    failed = stage(Stage.QUANTIZE, S, status=StageStatus.FAILED)
    again = [stage(Stage.LOAD, S, 1), stage(Stage.QUANTIZE, S, 1)]
    assert SavedRun(header=HEADER, stages=[*LOAD, failed, *again]).finished() == [*LOAD, failed, *again]
    assert SavedRun(header=HEADER, stages=[*LOAD, failed]).finished() == LOAD


def test_the_latents_on_disk_are_those_of_the_last_video(tmp_path: Path) -> None:
    """A decode that failed in an earlier video would find another one's latents: that video is made anew."""
    failed = [*(stage(each, M, 0) for each in TO_LATENTS), stage(Stage.DECODE, M, 0, StageStatus.FAILED)]
    later = [stage(each, M, 1) for each in WHOLE]
    assert SavedRun(header=HEADER, stages=[*failed, *later]).finished() == later


def test_a_line_of_any_text_stays_one_line(tmp_path: Path) -> None:
    """A prompt may hold what Unicode calls the end of a line."""
    workload = HEADER.spec.workload.model_copy(update={"prompt": "a cat\u2028by\x85the\u2029sea"})
    header = HEADER.model_copy(update={"spec": HEADER.spec.model_copy(update={"workload": workload})})
    Journal.create(tmp_path, header).close()
    assert read_journal(tmp_path / FILE).header == header
