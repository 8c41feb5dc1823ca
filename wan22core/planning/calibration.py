"""Measured rows, and the factors of the memory and the time model that follow from them: medians, easily redone."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from math import nan
from statistics import median

from pydantic import BaseModel, ConfigDict

from wan22core.hardware.gpu_specs import find_spec
from wan22core.planning import work
from wan22core.planning.configuration import STREAMED, Configuration, Mechanism
from wan22core.planning.memory_model import MemoryFactors, peaks
from wan22core.planning.time_model import TimeFactors, TimeModel
from wan22core.specs import Precision, Workload
from wan22core.targets import RecipeClass

_MIB_PER_GIB = 1024
_MEASURED = "h100_2026-11-23.csv"


class MeasuredRow(BaseModel):
    """One measured run; MiB and seconds, None where nothing was recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configuration: Configuration
    workload: Workload
    alone: str | None
    """``transformer`` or ``vae`` when only that component was on the device."""
    step_s: float | None
    decode_s: float | None
    encode_s: float | None
    denoise_allocated_mib: float | None
    denoise_reserved_mib: float | None
    decode_allocated_mib: float | None
    decode_reserved_mib: float | None
    encode_allocated_mib: float | None


@cache
def measured_rows() -> tuple[MeasuredRow, ...]:
    """The rows of ``data/``: one H100, random weights of the true architecture, stock diffusers and a prototype."""
    text = resources.files("wan22core.planning").joinpath("data", _MEASURED).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(_row(row) for row in csv.DictReader(lines))


_PLACEMENTS = {
    "resident": (Mechanism.RESIDENT, None),
    "group_block_stream": (Mechanism.GROUP_BLOCK, None),
    "group_leaf_stream": (Mechanism.GROUP_LEAF, None),
    "encode_then_free": (Mechanism.TEXT_ENCODER_FIRST, None),
    "dit_alone": (Mechanism.MODEL_OFFLOAD, "transformer"),
    "vae_alone": (Mechanism.MODEL_OFFLOAD, "vae"),
}


def _row(row: dict[str, str]) -> MeasuredRow:
    mechanism, alone = _PLACEMENTS[row["placement"]]

    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    def mib(name: str, less_mib: float = 0.0) -> float | None:
        return float(row[name]) * _MIB_PER_GIB - less_mib if row[name] else None

    tile = None
    if row["tile_min"]:
        height, width = (int(side) for side in row["tile_min"].split("x"))
        stride_height, stride_width = (int(side) for side in row["tile_stride"].split("x"))
        tile = (height, width, stride_height, stride_width)
    precision = Precision(row["dit_precision"] or "bf16")
    # the prototype that was measured left the prompt's linears in bf16: today's transformer is smaller by that
    more_mib = work.PROMPT_LINEARS_SAVE_BYTES / 2**20 if precision is Precision.FP8 else 0.0
    return MeasuredRow(
        configuration=Configuration(
            name=row["placement"],
            recipe_class=RecipeClass.QUANTIZED if precision is Precision.FP8 else RecipeClass.LOSSLESS,
            mechanism=mechanism,
            transformer=precision,
            vae=Precision(row["vae_precision"] or "bf16"),
            attention="cudnn" if "cudnn" in row["attention"] else "native",
            compiled=row["compile"] == "regional",
            tile=tile,
        ),
        workload=Workload(width=int(row["width"]), height=int(row["height"]), frames=int(row["frames"])),
        alone=alone,
        step_s=number("step_s"),
        decode_s=number("decode_s"),
        encode_s=number("encode_s"),
        denoise_allocated_mib=mib("denoise_alloc", more_mib),
        denoise_reserved_mib=mib("denoise_reserved", more_mib),
        decode_allocated_mib=mib("decode_alloc", more_mib),
        decode_reserved_mib=mib("decode_reserved", more_mib),
        encode_allocated_mib=mib("encode_alloc"),
    )


_NOTHING = MemoryFactors(
    eager_tensors=0, compiled_tensors=0, decoder_values_per_pixel=0, eager_slack=0, compiled_slack=0, streamed_slack=0,
    decoder_slack=0, encoder_mib=0, context_mib=0,
)  # fmt: skip
_CONTEXT_MIB = 563.0
"""0.5 to 0.6 GiB on that H100, outside the allocator."""


def fit_memory(rows: Sequence[MeasuredRow]) -> MemoryFactors:
    """The factors: each the median over the rows of its mechanism of what is left after the exact weights."""

    def denoise_tensors(row: MeasuredRow) -> float | None:
        left = _left(row, "denoise", row.denoise_allocated_mib)
        return None if left is None else left * 2**20 / work.tensor_bytes(row.workload)

    def decoder_values(row: MeasuredRow) -> float | None:
        left = _left(row, "decode", row.decode_allocated_mib)
        if left is None:
            return None
        one = _decoder_mib_of_one(row)
        return (left - one[0]) / one[1]

    eager = [row for row in rows if not row.configuration.compiled]
    compiled = [row for row in rows if row.configuration.compiled]
    streamed = [row for row in rows if row.configuration.mechanism in STREAMED]
    in_place = [row for row in rows if row.configuration.mechanism not in STREAMED]
    denoise = ("denoise", lambda row: row.denoise_allocated_mib, lambda row: row.denoise_reserved_mib)
    decode = ("decode", lambda row: row.decode_allocated_mib, lambda row: row.decode_reserved_mib)
    return _NOTHING.model_copy(
        update={
            "eager_tensors": _median(eager, denoise_tensors),
            "compiled_tensors": _median(compiled, denoise_tensors),
            "decoder_values_per_pixel": _median(in_place, decoder_values),
            "eager_slack": _median([row for row in eager if row in in_place], _slack(*denoise)),
            "compiled_slack": _median(compiled, _slack(*denoise)),
            "streamed_slack": _median(streamed, _slack(*denoise)),
            "decoder_slack": _median(in_place, _slack(*decode)),
            "encoder_mib": _median(rows, lambda row: _left(row, "encode", row.encode_allocated_mib)),
            "context_mib": _CONTEXT_MIB,
        }
    )


@cache
def memory_factors() -> MemoryFactors:
    """The factors of all measured rows."""
    return fit_memory(measured_rows())


def _median(rows: Sequence[MeasuredRow], value: Callable[[MeasuredRow], float | None]) -> float:
    found = [each for row in rows if (each := value(row)) is not None]
    return median(found) if found else nan  # nothing measured is no zero: what depends on it is not predicted


def _left(row: MeasuredRow, stage: str, measured_mib: float | None) -> float | None:
    """What a measured peak has beyond the weights."""
    if measured_mib is None:
        return None
    return measured_mib - peaks(row.configuration, row.workload, _NOTHING)[stage].allocated_mib + _video_mib(row, stage)


def _video_mib(row: MeasuredRow, stage: str) -> float:
    """The model without factors still counts the finished video; it is part of what is left."""
    return _decoder_mib_of_one(row)[0] if stage == "decode" else 0.0


def _decoder_mib_of_one(row: MeasuredRow) -> tuple[float, float]:
    """MiB of the finished video, and MiB of one value for each pixel of a tile."""
    zero = peaks(row.configuration, row.workload, _NOTHING)["decode"].allocated_mib
    one = peaks(row.configuration, row.workload, _NOTHING.model_copy(update={"decoder_values_per_pixel": 1.0}))
    each = 4 if row.configuration.vae is Precision.FP32 else 2
    return 3 * work.video_pixels(row.workload) * each / 2**20, one["decode"].allocated_mib - zero


def _slack(
    stage: str,
    allocated: Callable[[MeasuredRow], float | None],
    reserved: Callable[[MeasuredRow], float | None],
) -> Callable[[MeasuredRow], float | None]:
    def value(row: MeasuredRow) -> float | None:
        left, high, low = _left(row, stage, allocated(row)), reserved(row), allocated(row)
        return None if left is None or high is None or low is None else (high - low) / left

    return value


_MEASURED_ON = "NVIDIA H100 80GB HBM3"


def fit_time(rows: Sequence[MeasuredRow]) -> TimeFactors:
    """The efficiencies: medians over the rows of what is left when the known parts of a step or a decode are off.

    A step of ``n`` tokens is ``a n + b n^2``: two shapes of the native rows give the attention's rate, and then each
    row gives its memory traffic.
    """
    base = TimeFactors(
        attention_native=1.0, eager_passes=0, compiled_passes=0, stream_share=0,
        decode_bytes_per_pixel={Precision.FP32: 0, Precision.BF16: 0}, tile_pixels=0,
    )  # fmt: skip
    native = [row for row in rows if row.step_s and not row.configuration.compiled and _in_place(row)]
    factors = base.model_copy(update={"attention_native": _attention_native(native)})
    compiled = [row for row in rows if row.step_s and row.configuration.compiled]
    whole = [row for row in rows if row.decode_s and row.configuration.tile is None]
    factors = factors.model_copy(
        update={
            "eager_passes": _median(native, lambda row: _passes(row, factors)),
            "compiled_passes": _median(compiled, lambda row: _passes(row, factors)),
            "decode_bytes_per_pixel": {
                precision: _median([row for row in whole if row.configuration.vae is precision], _traffic(factors))
                for precision in (Precision.FP32, Precision.BF16)
            },
        }
    )
    tiled = [row for row in rows if row.decode_s and row.configuration.tile is not None and _in_place(row)]
    streamed = [row for row in rows if row.step_s and not _in_place(row)]
    return factors.model_copy(
        update={
            "tile_pixels": _median(tiled, lambda row: _tile_pixels(row, factors)),
            "stream_share": _median(streamed, lambda row: _stream_share(row, factors)),
        }
    )


@cache
def time_factors() -> TimeFactors:
    """The factors of all measured rows."""
    return fit_time(measured_rows())


def measured_card(factors: TimeFactors) -> TimeModel:
    """The model of the card that was measured."""
    spec = find_spec(_MEASURED_ON)
    assert spec is not None
    return TimeModel(spec, factors)


def _in_place(row: MeasuredRow) -> bool:
    return row.configuration.mechanism not in STREAMED


def _attention_native(rows: Sequence[MeasuredRow]) -> float:
    """Share of the peak, from the curvature of the longest and the shortest native row."""
    ordered = sorted(rows, key=lambda row: row.workload.tokens)
    short, long = ordered[0], ordered[-1]
    if short.workload.tokens == long.workload.tokens:
        return nan
    few, many = short.workload.tokens, long.workload.tokens
    curvature = (_forward_s(long) / many - _forward_s(short) / few) / (many - few)
    peak = measured_card(_ANY).spec.peak_flop_s("bf16_fp32") or 1.0
    return 4.0 * work.LAYERS * work.WIDTH / curvature / peak


def _forward_s(row: MeasuredRow) -> float:
    return (row.step_s or 0.0) * row.workload.steps / work.forwards(row.workload)


_ANY = TimeFactors(
    attention_native=1, eager_passes=0, compiled_passes=0, stream_share=0, decode_bytes_per_pixel={}, tile_pixels=0
)


def _passes(row: MeasuredRow, factors: TimeFactors) -> float:
    """Passes over an activation that explain what products and attention leave of a step."""
    without = factors.model_copy(update={"eager_passes": 0.0, "compiled_passes": 0.0})
    one = factors.model_copy(update={"eager_passes": 1.0, "compiled_passes": 1.0})
    base = measured_card(without).step_s(row.configuration, row.workload) or 0.0
    each = (measured_card(one).step_s(row.configuration, row.workload) or 0.0) - base
    return ((row.step_s or 0.0) - base) / each


def _traffic(factors: TimeFactors) -> Callable[[MeasuredRow], float | None]:
    """Bytes for each pixel that explain what the convolutions leave of a decode."""

    def value(row: MeasuredRow) -> float | None:
        model = measured_card(factors)
        left = (row.decode_s or 0.0) - model.decode_s(row.configuration, row.workload)
        return left * model.spec.bandwidth_bytes_s * factors.bandwidth / work.video_pixels(row.workload)

    return value


def _tile_pixels(row: MeasuredRow, factors: TimeFactors) -> float:
    """What a tile loses, as pixels."""
    assert row.configuration.tile is not None
    height, width, _, _ = row.configuration.tile
    ideal = measured_card(factors).decode_s(row.configuration, row.workload)
    return ((row.decode_s or 0.0) / ideal - 1) * min(height, row.workload.height) * min(width, row.workload.width)


def _stream_share(row: MeasuredRow, factors: TimeFactors) -> float:
    """What streaming adds, as a share of the shorter of transfer and computation."""
    none, full = (factors.model_copy(update={"stream_share": share}) for share in (0.0, 1.0))
    hidden = measured_card(none).step_s(row.configuration, row.workload) or 0.0
    exposed = measured_card(full).step_s(row.configuration, row.workload) or 0.0
    return ((row.step_s or 0.0) - hidden) / (exposed - hidden)
