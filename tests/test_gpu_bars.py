"""The bars and the ceilings of ``benchmarks/gpu.py``: arithmetic on measurements that were made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.against_stock.bars import BARS, judge, table_of_bars
from benchmarks.against_stock.command import main
from benchmarks.against_stock.light import light_s, step_flop
from benchmarks.against_stock.records import Saved
from benchmarks.against_stock.sides import described, read_files
from benchmarks.against_stock.table import table
from tests.gpu_measurements import ASKED, C12, ceilings, measured, write
from wan22core.errors import UserInputError
from wan22core.specs import WORKLOADS


def verdicts(*paths: Path) -> dict[str, tuple[str, str]]:
    """(verdict, value or reason) by figure."""
    return {each.figure: (each.verdict, each.reason or each.value) for each in judge(read_files(paths))}


def test_a_step_is_held_against_its_flop_and_its_light() -> None:
    """The FLOP of facts: 1.50e14 a forward, two a step; the best attention is the ceiling."""
    workload = WORKLOADS["2s-720p"]
    assert step_flop(workload) == pytest.approx(2 * 1.50e14, rel=0.01)
    assert light_s(ceilings(), workload) == pytest.approx([0.424] * 5, rel=0.01)
    assert light_s(ceilings(scaled_down=True), workload) == []
    shown = table(ASKED, ["fast"], Saved(ASKED, ceilings(), [measured("fast", 0, step_median_s=0.551)]))
    flop, light = step_flop(workload) / 0.551 / 1e12, light_s(ceilings(), workload)[0] / 0.551
    assert f"| {flop:.1f} | {light:.0%} |" in shown
    assert "| pinned copy | not measured: nobody asked |" in shown
    assert "| bf16 gemm | 768.000 TFLOP | 768.000 - 768.000 | 5 |" in shown


def test_a_bar_holds_when_the_interval_reaches_it(tmp_path: Path) -> None:
    """One step: 0.83 s by 0.55 s are 1.51 times, and the fp8 step of 0.50 s is 1.66 times where 1.8 is asked."""
    done = []
    for round_ in range(5):
        done += [measured("stock_default", round_, step_median_s=0.83), measured("fast", round_, step_median_s=0.55)]
        fp8 = {"precision_actual": "float8_e4m3fn"}
        done += [measured("safe_12g", round_, step_median_s=0.50, labels=fp8)]
    found = verdicts(write(tmp_path / "gpu.jsonl", ASKED, done, ceilings()))
    assert found["one step, bf16: stock_default / fast"] == ("holds", "1.51x [1.51x, 1.51x], n = 5")
    assert found["one step, fp8: stock_default / safe_12g"] == ("does not hold", "1.66x [1.66x, 1.66x], n = 5")
    verdict, value = found["one step in bf16 against its speed of light: light / fast"]
    assert (verdict, value.partition(" ")[0]) == ("holds", f"{0.424 / 0.55:.0%}")
    assert found["low_8g runs under 8,192 MiB"] == ("not measured", "no file of measurements under 8,192 MiB")


def test_the_interval_decides_not_the_median(tmp_path: Path) -> None:
    """A median of 1.45 whose interval goes up to 1.6 reaches the bar of 1.5."""
    own = (0.5, 0.55, 0.552, 0.553, 0.5)
    done = [measured("stock_default", number, step_median_s=0.8) for number in range(5)]
    done += [measured("fast", number, step_median_s=step) for number, step in enumerate(own)]
    verdict, value = verdicts(write(tmp_path / "gpu.jsonl", ASKED, done))["one step, bf16: stock_default / fast"]
    assert (verdict, value) == ("holds", "1.45x [1.45x, 1.60x], n = 5")


def test_rows_that_may_not_be_compared_are_not_counted(tmp_path: Path) -> None:
    """A fallback, a run that broke and a round that one side lacks leave too few pairs; the reason is said."""
    done = [measured("stock_default", number, step_median_s=0.8) for number in range(6)]
    done += [measured("fast", number, step_median_s=0.5) for number in range(4)]
    done += [measured("fast", 4, labels={"fallback": True}), measured("fast", 5, error="out of memory")]
    path = write(tmp_path / "gpu.jsonl", ASKED, done)
    assert verdicts(path)["one step, bf16: stock_default / fast"] == ("not measured", "4 of 5 pairs")
    path = write(path, ASKED, [*done[:6], done[-1]])
    assert verdicts(path)["one step, bf16: stock_default / fast"] == (
        "not measured", "fast without a ceiling: broke (out of memory)",
    )  # fmt: skip


def test_start_to_video_under_the_ceiling_is_scaled(tmp_path: Path) -> None:
    """10 of 50 steps: 30 + 40 x 1 s against 12 + 40 x 0.5 s, with a warm page cache and compiled code."""
    asked = ASKED.model_copy(update={"steps": 10, "vram_limit_mib": C12})
    warm = {"page_cache": "warm"}
    done = []
    for number in range(6):
        done.append(measured("stock_low_vram", number, 30, step_median_s=1.0, labels=warm))
        compiled = {"compile_cache": "warm" if number else "cold"}
        done.append(measured("safe_12g", number, 12 if number else 60, labels=warm | compiled, decode_s=3.4))
    path = write(tmp_path / "12.jsonl", asked, done)
    assert "12 measurements of ti2v-5b 2s-720p under 12,288 MiB, 10 steps scaled to 50" in described(read_files([path]))
    found = verdicts(path)
    name = "start to video under 12,288 MiB: stock_low_vram / safe_12g"
    assert found[name] == ("holds", f"{70 / 32:.2f}x [{70 / 32:.2f}x, {70 / 32:.2f}x], n = 5")
    assert found["decode under 12,288 MiB: safe_12g"] == ("does not hold", "3.40 s [3.40 s, 3.40 s], n = 6")
    cool = [measured(each.recipe, each.round, 30, labels={"page_cache": "unknown"}) for each in done]
    assert verdicts(write(tmp_path / "12.jsonl", asked, cool))[name] == (
        "not measured", "stock_low_vram under 12,288 MiB: the page cache was unknown, not warm",
    )  # fmt: skip


def test_ceilings_of_several_files_are_compared(tmp_path: Path) -> None:
    """8 GiB against 12; a process that outgrew its ceiling does not hold, and files of two environments don't mix."""
    warm = {"page_cache": "warm"}

    def file(limit_mib: int, recipe: str, seconds: float, **more: Any) -> Path:
        done = [measured(recipe, number, seconds, labels=warm, **more) for number in range(5)]
        return write(tmp_path / f"{limit_mib}.jsonl", ASKED.model_copy(update={"vram_limit_mib": limit_mib}), done)

    twelve = file(C12, "safe_12g", 30)
    found = verdicts(twelve, file(8192, "low_8g", 45, peak_process_mib=8000.0), file(6144, "low_6g", 60))
    name = "start to video: low_8g under 8,192 MiB / safe_12g under 12,288 MiB"
    assert found[name] == ("does not hold", "1.50x [1.50x, 1.50x], n = 5")
    assert found["low_8g runs under 8,192 MiB"] == ("holds", "8,000 MiB of the process")
    assert found["low_6g runs under 6,144 MiB"] == ("does not hold", "10,000 MiB of the process")
    other = file(8192, "low_8g", 45, torch="2.12")
    assert "two environments" in verdicts(twelve, other)[name][1]
    with pytest.raises(UserInputError, match="are both under 8,192 MiB"):
        read_files([other, other])


def test_a_cold_load_is_held_against_the_best_direct_reads(tmp_path: Path) -> None:
    """10 GB at 2 GB/s are 5 s: a load of 6 s is 1.2 times that. The longest stage of a cold run is named."""
    cold = {"page_cache": "cold"}
    asked = ASKED.model_copy(update={"cold": True})
    done = [measured("fast", number, load_s=6.0, labels=cold) for number in range(5)]
    path = write(tmp_path / "cold.jsonl", asked, done, ceilings())
    under = [measured("safe_12g", number, 40, labels=cold) for number in range(5)]
    twelve = write(tmp_path / "cold12.jsonl", asked.model_copy(update={"vram_limit_mib": C12}), under)
    found = verdicts(path, twelve)
    assert found["load, cold: fast / the best of 1, 4, 16 threads of direct reads"] == (
        "holds", "1.20x [1.20x, 1.20x], n = 5",
    )  # fmt: skip
    assert found["start to video under 12,288 MiB, page cache cold: safe_12g"] == (
        "reported", "40.00 s [40.00 s, 40.00 s], n = 5; the longest stage: denoise 25.00 s",
    )  # fmt: skip


def test_bars_are_for_the_5b_model(tmp_path: Path) -> None:
    """Another workload or architecture is not measured, in every row."""
    tiny = [measured("stock_default", number, labels={"architecture": "tiny"}) for number in range(5)]
    other = write(tmp_path / "smoke.jsonl", ASKED.model_copy(update={"workload": "smoke"}), tiny)
    judged = judge(read_files([other]))
    assert {each.verdict for each in judged} == {"not measured"} and len(judged) == len(BARS)
    assert "the bars are for 2s-720p" in table_of_bars(judged)
    path = write(tmp_path / "tiny.jsonl", ASKED, tiny)
    assert f"the bars are for ti2v-5b, {path} is of tiny" in {each.reason for each in judge(read_files([path]))}


def test_the_command_judges_files_and_measures_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar that does not hold is the outcome; one that was not measured is none."""
    done = []
    for number in range(5):
        done += [measured("stock_default", number, step_median_s=0.8), measured("fast", number, step_median_s=0.5)]
    path = write(tmp_path / "gpu.jsonl", ASKED, done)
    before = path.read_bytes()
    assert main(["--bars", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "10 measurements of ti2v-5b 2s-720p without a ceiling, 50 steps, on Synthetic GPU" in shown
    name = "one step, bf16: stock_default / fast"
    assert f"| {name} | 1.60x [1.60x, 1.60x], n = 5 | >= 1.50x | >= 1.70x, not reached | holds |" in shown
    assert path.read_bytes() == before
    slow = [
        each if each.recipe == "stock_default" else measured("fast", each.round, step_median_s=0.7) for each in done
    ]
    assert main(["--bars", str(write(path, ASKED, slow))]) == 1
    assert "| does not hold |" in capsys.readouterr().out
    with pytest.raises(UserInputError, match="There are no measurements in"):
        main(["--bars", str(tmp_path / "missing.jsonl")])
