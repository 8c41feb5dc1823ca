"""The memory and the time model against the measured rows, as Markdown: fitted with the row, and without it.

Usage: python benchmarks/prediction_errors.py
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from wan22core.planning.calibration import MeasuredRow, fit_memory, fit_time, measured_card, measured_rows
from wan22core.planning.memory_model import peaks

ROWS = measured_rows()


def main() -> None:
    print(f"```\n{fit_memory(ROWS)!r}\n\n{fit_time(ROWS)!r}\n```\n")
    print("| row | quantity | measured | error, fitted with it | error, left out |\n|---|---|---|---|---|")
    for row in ROWS:
        rest = [other for other in ROWS if other is not row]
        for (quantity, measured, fitted), (_, _, left_out) in zip(
            errors(row, list(ROWS)), errors(row, rest), strict=True
        ):
            alone = "no other row" if isnan(left_out) else f"{left_out:+.1%}"
            print(f"| {label(row)} | {quantity} | {measured:,.4g} | {fitted:+.1%} | {alone} |")
    print("\n| whole shape left out | quantity | measured | error |\n|---|---|---|---|")
    for width, frames in ((832, 49), (1280, 25)):
        shape = [row for row in ROWS if (row.workload.width, row.workload.frames) == (width, frames)]
        for row in shape:
            for quantity, measured, error in errors(row, [other for other in ROWS if other not in shape]):
                print(f"| {label(row)} | {quantity} | {measured:,.4g} | {error:+.1%} |")


def errors(row: MeasuredRow, fitted_on: list[MeasuredRow]) -> Iterator[tuple[str, float, float]]:
    """(quantity, measured, relative error) of what the row has."""
    predicted = peaks(row.configuration, row.workload, fit_memory(fitted_on))
    for stage in ("encode", "denoise", "decode"):
        for kind in ("allocated", "reserved"):
            measured = getattr(row, f"{stage}_{kind}_mib", None)
            if measured is not None:
                yield f"{stage} {kind} MiB", measured, getattr(predicted[stage], f"{kind}_mib") / measured - 1
    model = measured_card(fit_time(fitted_on))
    if row.step_s is not None:
        yield "step s", row.step_s, (model.step_s(row.configuration, row.workload) or 0.0) / row.step_s - 1
    if row.decode_s is not None:
        yield "decode s", row.decode_s, model.decode_s(row.configuration, row.workload) / row.decode_s - 1


def label(row: MeasuredRow) -> str:
    made, shape = row.configuration, row.workload
    tile = "" if made.tile is None else f", tiles {made.tile[0]}x{made.tile[1]}"
    compiled = ", compiled" if made.compiled else ""
    kind = f"{made.transformer.value} / VAE {made.vae.value}, {made.attention}{compiled}{tile}"
    return f"{made.name}, {shape.width}x{shape.height}x{shape.frames}, {kind}"


if __name__ == "__main__":
    main()
