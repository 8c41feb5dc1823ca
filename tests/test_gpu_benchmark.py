"""``benchmarks/gpu.py``: what it needs, in which order it measures, and that it goes on where it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import Asked, Line, Measured, cells, expected_s, faster, in_order, order, read, table
from tests.builders import make_labels, make_repeats, make_stages
from wan22core.errors import UserInputError
from wan22core.files import whole_lines
from wan22core.records import MemoryReading

ROOT = Path(__file__).resolve().parents[1]
ASKED = Asked(model="ti2v-5b", workload="2s-720p", steps=50, repeats=1, device="cuda:0", vram_limit_mib=None)
_WITHOUT = """
import runpy, sys
sys.modules["prefect"] = sys.modules["great_expectations"] = None  # an import of one of them fails
sys.path.insert(0, "benchmarks")
sys.argv[0] = "benchmarks/gpu.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def measured(
    name: str, round_: int, start_to_video_s: float, *, torch: str = "2.13", error: str | None = None
) -> Measured:
    row = make_repeats(cuda=True)[1].model_copy(update={"start_to_video_s": start_to_video_s, "step_median_s": 0.5})
    return Measured(
        recipe=name, round=round_, wall_s=start_to_video_s + 5, run_dir="/runs/x", labels=make_labels(cuda=True),
        environment={"torch": torch, "driver": None}, rows=[row], out_of_order=[], error=error,
    )  # fmt: skip


def test_every_other_round_goes_backwards() -> None:
    assert order(["a", "b"], 3) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_the_budget_counts_with_the_longest_of_the_recipe() -> None:
    """Of any recipe where this one has not run yet."""
    done = [measured("a", 0, 20), measured("a", 1, 10), measured("b", 0, 40)]
    assert [expected_s(name, done) for name in ("a", "b", "c")] == [25, 45, 45]


def test_a_ratio_says_how_many_times_faster() -> None:
    """One value a side has no interval, none is no ratio."""
    assert faster([10], [5]) == "2.00"
    assert faster([10, 10], [5, 5]) == "2.00 [2.00, 2.00]"
    assert (faster([], [5]), faster([5], [])) == ("not measured", "not measured")


def test_what_broke_and_another_environment_enter_no_figure() -> None:
    """Both are said in the table."""
    done = [measured("a", 0, 99, torch="2.12"), measured("a", 1, 20), measured("b", 0, 10)]
    done += [measured("b", 1, 1, error="out of memory")]
    shown = table(ASKED, ["a", "b"], done)
    assert "1 measurements of another environment are left out" in shown
    assert cells("b", done[2:], done[1:2], 0)[1] == "2, 1 broke"
    row = next(line for line in shown.splitlines() if line.startswith("| b "))
    assert "| 10.000 |" in row and "| 2.00 |" in row


def test_fewer_steps_are_scaled_and_said() -> None:
    """8 of 50 steps: 42 more of 0.5 s are added to the generation of 7.5 s."""
    shown = table(ASKED.model_copy(update={"steps": 8}), ["a"], [measured("a", 0, 20)])
    assert "8 steps" in shown and "generation s, scaled to 50 steps" in shown
    assert "| 7.500 | 0.500 | 28.500 |" in shown


@pytest.mark.parametrize(("process_mib", "true"), [(9500, True), (9440, True), (9400, False)])
def test_readings_of_one_moment_are_in_order(process_mib: float, true: bool) -> None:
    """64 MiB of tolerance: the counters are not read at one instant."""
    reading = MemoryReading(allocated_mib=8000, reserved_mib=9500, process_mib=process_mib, device_mib=10_500)
    assert in_order(make_stages(cuda=True)[0].model_copy(update={"memory_end": reading})) is true


def test_a_file_of_other_measurements_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gpu.jsonl").write_text(Line(asked=ASKED).model_dump_json() + "\n")
    assert read(tmp_path / "gpu.jsonl", ASKED) == []
    with pytest.raises(UserInputError, match="holds other measurements"):
        read(tmp_path / "gpu.jsonl", ASKED.model_copy(update={"steps": 8}))


def test_it_runs_on_the_core_alone_and_goes_on(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The real model, no Prefect and no Great Expectations; a spent budget ends it, and the next call does the rest."""
    out = tmp_path / "gpu.jsonl"
    arguments = ["reference", "--model", str(tiny_checkpoint), "--workload", "smoke", "--steps", "1"]
    arguments += ["--device", "cpu", "--rounds", "2", "--budget-s", "0", "--out", str(out)]

    def call() -> str:
        command = [sys.executable, "-c", _WITHOUT, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "1 measurements are left when the budget ends" in call()
    assert len(whole_lines(out)) == 2
    first = out.read_bytes()
    assert "scaled to 5 steps" in call()
    assert out.read_bytes().startswith(first), "what was measured stays as it is"
    rounds = [line.measured for text in whole_lines(out) if (line := Line.model_validate_json(text)).measured]
    assert [(each.round, each.recipe, each.error) for each in rounds] == [
        (0, "reference", None),
        (1, "reference", None),
    ]
    assert all(each.values("start_to_video_s")[0] > each.values("generation_s")[0] > 0 for each in rounds)
