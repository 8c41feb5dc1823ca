"""The order of it all: the ceilings, the measurements as far as the budget goes, the table."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.against_stock.bars import judge, table_of_bars
from benchmarks.against_stock.device_ceilings import measure_ceilings
from benchmarks.against_stock.measuring import expected_s, made_cold, measure, order
from benchmarks.against_stock.options import parsed
from benchmarks.against_stock.records import Asked, Line, Saved, read_for
from benchmarks.against_stock.sides import described, read_files
from benchmarks.against_stock.table import table
from wan22core.files import LineWriter

BROKEN, OUT_OF_ORDER, NOT_MEASURED, DOES_NOT_HOLD = 4, 5, 3, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the file lacks, as far as the budget goes, and prints the table of all that is there."""
    options = parsed(arguments)
    if options.bars:
        files = read_files(options.bars)
        judged = judge(files)
        print(f"{described(files)}\n\n{table_of_bars(judged)}")
        return DOES_NOT_HOLD if any(each.verdict == "does not hold" for each in judged) else 0
    asked = Asked(**{name: getattr(options, name) for name in Asked.model_fields})
    began, saved = time.monotonic(), read_for(options.out, asked)
    writer = LineWriter(options.out)
    if writer.is_empty:
        writer.write(Line(asked=asked).model_dump_json())
    try:
        if options.ceilings and saved.ceilings is None:
            saved = saved._replace(ceilings=measure_ceilings(asked))
            _keep(writer, Line(ceilings=saved.ceilings))
        why_warm = _measure(asked, options.recipes, options.rounds, saved, began + options.budget_s, writer)
    finally:
        writer.close()
    print(table(asked, options.recipes, saved))
    return _outcome(saved, why_warm)


def _measure(
    asked: Asked, recipes: Sequence[str], rounds: int, saved: Saved, until: float, writer: LineWriter
) -> str | None:
    """Adds to ``saved`` and to the file what they lack; why the page cache can't be made cold, where that ends it."""
    done = saved.measured
    left = [pair for pair in order(recipes, rounds) if pair not in {(each.round, each.recipe) for each in done}]
    for number, (round_, name) in enumerate(left):
        if number and time.monotonic() + expected_s(name, done) > until:
            print(f"{len(left) - number} measurements are left when the budget ends: run the same command again.\n")
            break
        if asked.cold and (reason := made_cold(asked, name)) is not None:
            print(f"{len(left) - number} measurements are not_measured: {reason}.\n")
            return reason
        done.append(measure(asked, name, round_))
        _keep(writer, Line(measured=done[-1]))
    return None


def _keep(writer: LineWriter, line: Line) -> None:
    writer.write(line.model_dump_json())
    writer.flush(sync=True)


def _outcome(saved: Saved, why_warm: str | None) -> int:
    broken = [each for each in saved.measured if each.error is not None]
    for each in broken:
        print(f"{each.recipe}, round {each.round}: {each.error}", file=sys.stderr)
    if broken:
        return BROKEN
    if any(each.out_of_order for each in saved.measured):
        return OUT_OF_ORDER
    return 0 if why_warm is None else NOT_MEASURED
