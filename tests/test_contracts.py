"""The lower floors: errors, targets, specs, recipes, files, statistics."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from wan22core import files
from wan22core.errors import (
    InsufficientDiskSpaceError,
    RunsFolderError,
    StorageError,
    UnknownNameError,
    Wan22Error,
    error_classes,
)
from wan22core.planning.quantization import plan_quantization, quantization_deadline_s
from wan22core.recipes import recipe, with_text_encoder
from wan22core.records import Reading
from wan22core.specs import WORKLOADS, BenchmarkSpec, Precision, Workload
from wan22core.statistics import integral, summarize, time_weighted_mean
from wan22core.targets import TARGETS, RecipeClass


@pytest.mark.parametrize("cls", error_classes().values(), ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling_with_its_details(cls: type[Wan22Error]) -> None:
    """Prefect pickles what a task raises."""
    copy = pickle.loads(pickle.dumps(cls("what", next_action="next", details={"stage": "load"})))
    assert (type(copy), copy.as_dict()) == (cls, cls("what", next_action="next", details={"stage": "load"}).as_dict())


def test_every_error_has_a_code_of_its_own() -> None:
    """Messages between processes name errors by their code."""

    def count(cls: type[Wan22Error]) -> int:
        return 1 + sum(count(child) for child in cls.__subclasses__())

    assert len(error_classes()) == count(Wan22Error)


@pytest.mark.parametrize(("width", "height", "frames"), [(1280, 704, 49), (704, 1280, 121), (1280, 704, 121)])
def test_native_shapes_are_accepted(width: int, height: int, frames: int) -> None:
    workload = Workload(width=width, height=height, frames=frames)
    assert workload.tokens == {49: 11_440, 121: 27_280}[frames]


@pytest.mark.parametrize(
    ("change", "nearest"),
    [({"height": 720}, "704"), ({"width": 1270}, "1280"), ({"frames": 48}, "49"), ({"frames": 50}, "49")],
)
def test_a_refused_shape_names_the_nearest_valid_value(change: dict[str, int], nearest: str) -> None:
    with pytest.raises(ValidationError, match=f"the nearest valid value is {nearest}"):
        Workload(**({"width": 1280, "height": 704, "frames": 49} | change))


@given(st.integers(1, 2560), st.integers(1, 2560), st.integers(1, 481))
def test_the_nearest_values_are_valid_themselves(width: int, height: int, frames: int) -> None:
    from wan22core.specs import nearest_frames, nearest_multiple

    shape = {"width": nearest_multiple(width), "height": nearest_multiple(height), "frames": nearest_frames(frames)}
    workload = Workload(**shape)
    assert abs(workload.frames - frames) <= 2
    assert all(abs(a - b) <= 16 or min(a, b) < 32 for a, b in ((workload.width, width), (workload.height, height)))


def test_targets_are_strict_at_the_limit() -> None:
    """300.0 s is not under 5 minutes."""
    load = next(target for target in TARGETS if target.metric == "load_s")
    assert (load.holds(math.nextafter(300.0, 0)), load.holds(300.0)) == (True, False)


def test_a_reading_has_a_value_or_a_reason() -> None:
    assert Reading[int].missing("nvml", "no GPU").reason == "no GPU"
    with pytest.raises(ValidationError, match="either a value or a reason"):
        Reading[int](value=None, source="nvml")
    with pytest.raises(ValidationError, match="either a value or a reason"):
        Reading[int](value=0, source="nvml", reason="no GPU")


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("fast", "int8", ("fast_text_int8", RecipeClass.QUANTIZED)),
        ("fast", "fp16", ("fast_text_fp16", RecipeClass.LOSSLESS)),
        ("mag_cache", "fp8", ("mag_cache_text_fp8", RecipeClass.APPROXIMATE)),
        ("fast", "bf16", ("fast", RecipeClass.LOSSLESS)),
    ],
)
def test_another_text_encoder_is_another_recipe(name: str, precision: str, expected: tuple[str, RecipeClass]) -> None:
    """Under a name of its own, so that no series mixes the two."""
    found = with_text_encoder(recipe(name), Precision(precision))
    assert (found.name, found.recipe_class, found.text_encoder_precision.value) == (*expected, precision)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError) as caught:
        recipe("referense")
    assert "'reference'" in caught.value.next_action


@pytest.mark.parametrize(
    ("precision", "size_gib", "seconds"),
    [
        (Precision.NONE, 1.0, 30.0),
        (Precision.BF16, 1.0, 60.0),
        (Precision.BF16, 18.6, 186.0),
        (Precision.INT8, 10.0, 150.0),
        (Precision.FP8, 18.6, 279.0),
    ],
)
def test_the_quantization_deadline_is_the_shorter_bound(precision: Precision, size_gib: float, seconds: float) -> None:
    """The original's formula (30 s for casting nothing), or five times the prediction and at least a minute."""
    assert quantization_deadline_s(precision, size_gib) == pytest.approx(seconds)


def test_a_fallback_gets_half_the_time() -> None:
    asked = recipe("reference").model_copy(
        update={"transformer_precision": Precision.FP8, "fallbacks": (Precision.INT8, Precision.BF16)}
    )
    plan = plan_quantization(BenchmarkSpec(workload=WORKLOADS["smoke"], recipe=asked), 1.0)
    assert [(a.precision.value, a.quantizes, a.deadline_s) for a in plan.attempts] == [
        ("fp8", True, 60.0),
        ("int8", True, 30.0),
        ("bf16", False, 30.0),
    ]
    assert plan.bound_s == 90.0


def test_building_a_spec_touches_nothing(tmp_path: Path) -> None:
    """A spec about files that don't exist is a valid spec; frozen, and closed to unknown fields."""
    workload = Workload(width=64, height=64, frames=9, image_to_video=True, image=tmp_path / "missing.png")
    spec = BenchmarkSpec(workload=workload, recipe=recipe("reference"))
    assert BenchmarkSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.repeats = 7  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        BenchmarkSpec.model_validate({**spec.model_dump(), "repeat": 7})


def test_statistics_leave_out_what_is_missing_and_claim_no_percentile_of_a_handful() -> None:
    summary = summarize([3.0, None, 1.0, 2.0])
    assert (summary.n, summary.median, summary.mad, summary.stdev, summary.p95) == (3, 2.0, 1.0, 1.0, None)
    assert summarize([]).median is None
    assert summarize([float(i) for i in range(21)]).p95 == pytest.approx(19.0)
    with pytest.raises(ValueError, match="not finite"):
        summarize([1.0, math.nan])


def test_energy_is_the_integral_of_power() -> None:
    assert integral([0.0, 1.0, 3.0], [100.0, 200.0, 200.0]) == pytest.approx(550.0)
    assert time_weighted_mean([0.0, 1.0, 3.0], [100.0, 200.0, 200.0]) == pytest.approx(550.0 / 3)
    assert integral([0.0, 1.0], [100.0, None]) is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    files.write_json(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": math.nan})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (path.read_bytes(), [p.name for p in tmp_path.iterdir()]) == (before, ["run.json"])


def test_a_backup_is_byte_identical_and_never_overwrites_another(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf{\r\n\x00")
    first, second = files.back_up(path), files.back_up(path)
    assert first != second
    assert first.read_bytes() == second.read_bytes() == path.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """Writes to a device that is always full end in the error for a full disk."""
    with (
        pytest.raises(InsufficientDiskSpaceError, match="disk is full"),
        files.atomic_path(tmp_path / "x"),
        Path("/dev/full").open("wb", buffering=0) as stream,
    ):
        stream.write(b"1")


def test_free_space_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InsufficientDiskSpaceError, match=r"needs .* GiB"):
        files.require_free_space(tmp_path / "not" / "there", 1 << 60, "A checkpoint")


def test_a_folder_below_a_file_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunsFolderError, match="can't be written"):
        files.require_writable_folder(tmp_path / "file" / "runs")
    with pytest.raises(StorageError):
        files.write_text(tmp_path / "file" / "runs" / "run.json", "")
