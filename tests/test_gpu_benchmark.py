"""``benchmarks/gpu.py``: what it needs, in which order it measures, that it goes on, and what stock diffusers makes."""

from __future__ import annotations

import mmap
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.against_stock.baselines import DEFAULT_RECIPES, STOCK, spec_of
from benchmarks.against_stock.measuring import expected_s, in_order, made_cold, order, stages_s
from benchmarks.against_stock.options import parsed
from benchmarks.against_stock.records import CeilingName, Saved, read, read_for
from benchmarks.against_stock.table import cells, faster, table
from tests.builders import make_stages
from tests.gpu_measurements import ASKED, C12, measured, write
from wan22core import page_cache
from wan22core.errors import IncompatibleHardwareError, UnknownNameError, UnsupportedQuantizationError, UserInputError
from wan22core.files import whole_lines
from wan22core.records import MemoryReading
from wan22core.specs import Precision
from wan22core.worker.engine import Engine, build_engine

ROOT = Path(__file__).resolve().parents[1]
_WITHOUT = """
import runpy, sys
sys.modules["prefect"] = sys.modules["great_expectations"] = None  # an import of one of them fails
sys.path.insert(0, "benchmarks")
sys.argv[0] = "benchmarks/gpu.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


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
    shown = table(ASKED, ["a", "b"], Saved(ASKED, None, done))
    assert "1 measurements of another environment are left out" in shown
    assert cells("b", done[2:], done[1:2], 0)[1] == "2, 1 broke"
    row = next(line for line in shown.splitlines() if line.startswith("| b "))
    assert "| 10.000 |" in row and "| 2.00 |" in row


def test_fewer_steps_are_scaled_and_said() -> None:
    """8 of 50 steps: 42 more of 0.5 s are added to the generation of 7.5 s."""
    saved = Saved(ASKED, None, [measured("a", 0, 20)])
    shown = table(ASKED.model_copy(update={"steps": 8}), ["a"], saved)
    assert "8 steps" in shown and "generation s, scaled to 50 steps" in shown
    assert "| 7.500 | 0.500 | 28.500 | 3.000 |" in shown


@pytest.mark.parametrize(("process_mib", "true"), [(9500, True), (9440, True), (9400, False)])
def test_readings_of_one_moment_are_in_order(process_mib: float, true: bool) -> None:
    """64 MiB of tolerance: the counters are not read at one instant."""
    reading = MemoryReading(allocated_mib=8000, reserved_mib=9500, process_mib=process_mib, device_mib=10_500)
    assert in_order(make_stages(cuda=True)[0].model_copy(update={"memory_end": reading})) is true


def test_a_file_of_other_measurements_is_refused(tmp_path: Path) -> None:
    """And one that holds something else."""
    path = write(tmp_path / "gpu.jsonl", ASKED, [])
    assert read_for(path, ASKED).measured == []
    for other in ({"steps": 8}, {"cold": True}, {"vram_limit_mib": C12}):
        with pytest.raises(UserInputError, match="holds other measurements"):
            read_for(path, ASKED.model_copy(update=other))
    path.write_text("# notes\n")
    with pytest.raises(UserInputError, match="is no file of measurements"):
        read(path)


def test_the_baselines_are_measured_with_every_recipe_where_none_is_named() -> None:
    """Ratios are against the first, stock diffusers as it comes; a name that there is not is refused with those there
    are."""
    assert parsed([]).recipes == list(DEFAULT_RECIPES)
    assert DEFAULT_RECIPES[:4] == ("stock_default", "stock_low_vram", "stock_tuned", "reference")
    with pytest.raises(UnknownNameError) as refused:
        parsed(["stock"])
    assert "reference" in refused.value.next_action and "stock_low_vram" in refused.value.next_action


@pytest.mark.parametrize("name", STOCK)
def test_a_baseline_runs_in_its_own_engine(name: str) -> None:
    """Under the budget's steps and ceiling like any recipe."""
    spec = spec_of(ASKED.model_copy(update={"steps": 8, "vram_limit_mib": C12}), name)
    assert (spec.recipe.name, spec.workload.steps, spec.vram_limit_mib) == (name, 8, C12)
    assert spec.engine.startswith("benchmarks.against_stock.engines:Stock")
    assert spec_of(ASKED, "fast").engine != spec.engine


def test_a_stage_is_the_median_of_what_was_measured() -> None:
    """Warm-ups are data of another kind."""
    stages = make_stages(cuda=True)
    slow = [each.model_copy(update={"wall_s": 99.0}) if each.kind == "warmup" else each for each in stages]
    assert stages_s(slow) == stages_s(stages)
    assert stages_s(stages)["decode"] == next(each.wall_s for each in stages if each.stage == "decode")


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, without Prefect and Great Expectations."""
    command = [sys.executable, "-c", _WITHOUT, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_runs_on_the_core_alone_and_goes_on(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The real model beside stock diffusers, whose latents are ours bit for bit; no Prefect, no Great Expectations.

    A spent budget ends it, and the next call does the rest.
    """
    from safetensors.numpy import load_file

    out = tmp_path / "gpu.jsonl"
    arguments = ["reference", "stock_default", *_smoke(tiny_checkpoint), "--ceilings"]
    arguments += ["--budget-s", "0", "--out", str(out)]
    done = gpu(*arguments)
    assert done.returncode == 0, done.stderr
    assert "1 measurements are left when the budget ends" in done.stdout
    first = out.read_bytes()
    done = gpu(*arguments)
    assert done.returncode == 0, done.stderr
    assert "scaled to 5 steps" in done.stdout and "it is no measure of the device" in done.stdout
    assert out.read_bytes().startswith(first), "what was measured stays as it is"
    saved = read(out)
    assert len(whole_lines(out)) == 4, "head, ceilings once, two measurements"
    assert [(each.round, each.recipe, each.error) for each in saved.measured] == [
        (0, "reference", None),
        (0, "stock_default", None),
    ]
    assert all(each.values("start_to_video_s")[0] > each.values("generation_s")[0] > 0 for each in saved.measured)
    assert saved.ceilings is not None and {each.name for each in saved.ceilings.found} == set(CeilingName)
    assert all(len(each.samples) >= 5 for each in saved.ceilings.found if each.reason is None)
    ours, stock = (load_file(Path(each.run_dir) / "latents.safetensors") for each in saved.measured)
    assert ours.keys() == stock.keys() and all((ours[key] == stock[key]).all() for key in ours)


def _engine(name: str, checkpoint: Path) -> Engine:
    asked = ASKED.model_copy(update={"workload": "smoke", "steps": 2, "device": "cpu"})
    return build_engine(spec_of(asked, name), checkpoint, "cpu")


def test_stock_under_little_memory_offloads_on_a_cpu(tiny_checkpoint: Path) -> None:
    """What is offloaded computes the latents of stock diffusers as it comes."""
    latents = []
    for name in ("stock_default", "stock_low_vram"):
        engine, steps = _engine(name, tiny_checkpoint), []
        engine.load(lambda _progress: None)
        latents.append(engine.denoise(engine.encode(), None, lambda index, of, seen=steps: seen.append((index, of))))
        assert steps == [(0, 2), (1, 2)]
    assert bool((latents[0] == latents[1]).all())
    assert engine.decode(latents[1]).shape == (9, 160, 160, 3)
    pipeline = engine._pipeline
    assert pipeline.vae.use_tiling
    assert all(hasattr(block, "_diffusers_hook") for block in pipeline.transformer.blocks)
    precisions = {part.component: max(part.bytes_by_dtype, key=part.bytes_by_dtype.get) for part in engine.census()}
    assert precisions == dict.fromkeys(("transformer", "text_encoder", "vae"), "bfloat16")


def test_tuned_stock_needs_cuda(tiny_checkpoint: Path) -> None:
    """It says so in one sentence, when it would load."""
    with pytest.raises(IncompatibleHardwareError, match="stock_tuned needs CUDA for cuDNN's attention"):
        _engine("stock_tuned", tiny_checkpoint).load(lambda _progress: None)


def test_baselines_refuse_what_they_do_not_do(tiny_checkpoint: Path) -> None:
    """Another precision, and a start image."""
    engine = _engine("stock_default", tiny_checkpoint)
    with pytest.raises(UnsupportedQuantizationError, match="bf16, not in fp8"):
        engine.quantize(Precision.FP8, lambda _progress: None)
    asked = ASKED.model_copy(update={"workload": "2s-720p-i2v"})
    with pytest.raises(UserInputError, match="a prompt alone"):
        build_engine(spec_of(asked, "stock_default"), tiny_checkpoint, "cpu")


def test_the_checkpoint_is_made_cold(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Every file of it, whatever recipe is next."""
    model = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint, model)
    files = [path for path in sorted(model.rglob("*")) if path.is_file() and path.stat().st_size]
    if reason := next((reason for reason in map(page_cache.empty, files) if reason), None):
        pytest.skip(f"files here can't be made cold: {reason}")
    page_cache.fill(files)
    assert made_cold(ASKED.model_copy(update={"model": str(model)}), "fast") is None
    assert page_cache.cached(files).state == "cold"


def test_what_cannot_be_made_cold_is_not_measured(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Pages that another process has mapped stay in the page cache: here, this one's."""
    model = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint, model)
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    with weights.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:], "every page is read"
        done = gpu("reference", *_smoke(model), "--cold", "--out", str(tmp_path / "cold.jsonl"))
    assert done.returncode == 3, done.stderr
    assert "1 measurements are not_measured: " in done.stdout and "Nothing was measured." in done.stdout
    assert read(tmp_path / "cold.jsonl").measured == []


def _smoke(model: Path) -> list[str]:
    return ["--model", str(model), "--workload", "smoke", "--steps", "1", "--device", "cpu", "--rounds", "1"]
