"""The collected metrics as tables: ``runs`` (a row per repeat), ``stages``, ``samples``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan22core.files import atomic_path
from wan22core.records import Labels, MemoryReading, RepeatRow, Sample, StageRecord

if TYPE_CHECKING:
    import pandas as pd

_TEXT = "object"
_NUMBER = "float64"


@dataclass(frozen=True)
class Tables:
    """pandas frames; a missing number is NaN, a missing text None, and an empty column keeps its type."""

    runs: pd.DataFrame
    stages: pd.DataFrame
    samples: pd.DataFrame


def build_tables(
    run_id: str,
    labels: Labels,
    repeats: Sequence[RepeatRow],
    stages: Sequence[StageRecord],
    samples: Sequence[Sample],
) -> Tables:
    """The tables of one run; every row of ``runs`` carries all labels."""
    label_columns = {"run_id": run_id, **labels.model_dump(mode="json")}
    return Tables(
        runs=_frame(({**label_columns, **row.model_dump(mode="json")} for row in repeats), _repeat_columns()),
        stages=_frame((_stage_row(run_id, stage) for stage in stages), _stage_columns()),
        samples=_frame((sample.model_dump() for sample in samples), dict.fromkeys(Sample.model_fields, _NUMBER)),
    )


def write_parquet(tables: Tables, folder: Path) -> None:
    """Writes ``stages.parquet`` and ``samples.parquet``, each all or nothing."""
    for name, frame in (("stages", tables.stages), ("samples", tables.samples)):
        with atomic_path(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)


def read_samples(folder: Path) -> list[Sample]:
    """The samples of a run folder; none where it has no table of them."""
    import pandas as pd

    file = folder / "samples.parquet"
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = pd.read_parquet(file).to_dict("records")
    return [Sample.model_validate({key: value for key, value in row.items() if pd.notna(value)}) for row in rows]


def _frame(rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns)).astype(columns)


def _stage_row(run_id: str, stage: StageRecord) -> dict[str, Any]:
    row = stage.model_dump(mode="json", exclude={"memory_end", "step_times_s"})
    if (tile := stage.tile) is not None:
        row["tile"] = f"{tile.height}x{tile.width}/{tile.stride_height}x{tile.stride_width}"
    end = {f"end_{name}": value for name, value in stage.memory_end.model_dump().items()}
    return {"run_id": run_id, **row, **end, "steps": len(stage.step_times_s)}


def _repeat_columns() -> dict[str, str]:
    texts = {"kind", "process_source", "output_finite", "output_constant"}
    return (
        {"run_id": _TEXT}
        | dict.fromkeys(Labels.model_fields, _TEXT)
        | {name: _TEXT if name in texts else _NUMBER for name in RepeatRow.model_fields}
    )


def _stage_columns() -> dict[str, str]:
    texts = {
        "stage", "kind", "component", "status", "process_source", "output_finite", "output_constant", "resumed",
        "tile", "from_cache", "compile_cache", "prepared", "error_code", "error",
    }  # fmt: skip
    own = [name for name in StageRecord.model_fields if name not in ("memory_end", "step_times_s")]
    return (
        {"run_id": _TEXT}
        | {name: _TEXT if name in texts else _NUMBER for name in own}
        | {f"end_{name}": _NUMBER for name in MemoryReading.model_fields}
        | {"steps": _NUMBER}
    )
