"""Runs checks in order. Whatever a check does ends in a verdict: nothing is swallowed, and a skip is no pass."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from wan22core.errors import DeviceBusyError, Wan22Error
from wan22core.records import CheckResult, CheckVerdict, Progress, ValidationReport
from wan22core.session.folder import new_run_id
from wan22core.settings import Settings
from wan22core.validation.analysis import INTERRUPTED, analyse
from wan22core.validation.case import Case, NotMeasured
from wan22core.validation.context import Context
from wan22core.validation.registry import Check, checks

OnProgress = Callable[[Progress], None]
_SHOWN_MISSES = 3
_log = logging.getLogger(__name__)


class _Ending(NamedTuple):
    """How a check ended."""

    verdict: CheckVerdict
    reason: str | None = None
    cause: str | None = None
    next: str | None = None
    log: str | None = None


_CUT_OFF = _Ending(CheckVerdict.NOT_MEASURED, "the validation was interrupted", INTERRUPTED, "Run it again.")


def validate(
    settings: Settings,
    categories: Sequence[str] = (),
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> ValidationReport:
    """A whole validation of these categories (of all without any); the caller keeps its report.

    ``folder`` holds the dumps of a machine that takes this one's place. An interrupt ends it early, with what ran.
    Raises ``UnknownNameError`` for an unknown category, ``UserInputError`` for a folder without dumps, and what
    ``Context.prepare`` raises, all before anything ran.
    """
    chosen = checks(categories)
    context = Context.new(new_run_id(), settings, folder)
    context.prepare()
    return analyse(context, run_checks(chosen, context, on_progress))


def run_checks(chosen: Sequence[Check], context: Context, on_progress: OnProgress | None = None) -> list[CheckResult]:
    """A result for each check, in order; an interrupt ends it, and what had been found until then is kept."""
    results: list[CheckResult] = []
    for number, check in enumerate(chosen):
        case = Case(context, check.deadline_s)
        try:
            if on_progress is not None:
                on_progress(Progress(stage=check.id, fraction=number / len(chosen), step=number + 1, steps=len(chosen)))
            results.append(_run(check, case))
        except KeyboardInterrupt:
            return [*results, _result(check, case, _CUT_OFF), *cut_off(chosen[number + 1 :], context)]
    return results


def cut_off(left: Sequence[Check], context: Context) -> list[CheckResult]:
    """The results of checks that an interrupt kept from running."""
    return [_result(check, Case(context, check.deadline_s), _CUT_OFF) for check in left]


def run(check: Check, context: Context) -> CheckResult:
    """One check; every exception is its verdict, but an interrupt."""
    return _run(check, Case(context, check.deadline_s))


def _run(check: Check, case: Case) -> CheckResult:
    try:
        check.run(case)
        ending = _judged(check, case)
    except NotMeasured as skipped:
        ending = _not_measured(check, case, skipped.reason, skipped.next_action)
    except DeviceBusyError as error:
        ending = _not_measured(check, case, error.message, error.next_action)
    except Exception as error:  # noqa: BLE001 - the boundary of a check: every exception is a verdict, traceback in the log
        ending = _broke(check, case.context, error)
    return _result(check, case, ending)


def _judged(check: Check, case: Case) -> _Ending:
    if not case.expected_anything:
        why = "the check expected nothing, so it proves nothing"
        return _Ending(CheckVerdict.ERROR, why, "no expectation", "Mend the check.")
    if case.unknown:
        return _not_measured(check, case, "; ".join(case.unknown), "See wan22 hardware, or give more of its dumps.")
    return _missed(check, case) if case.misses else _Ending(CheckVerdict.PASS)


def _not_measured(check: Check, case: Case, reason: str, next_action: str) -> _Ending:
    """What was missed before counts all the same."""
    if case.misses:
        return _missed(check, case)
    return _Ending(CheckVerdict.NOT_MEASURED, reason, reason, next_action)


def _missed(check: Check, case: Case) -> _Ending:
    misses = case.misses
    shown = [f"{miss.what}: expected {miss.expected}, observed {miss.observed}" for miss in misses[:_SHOWN_MISSES]]
    if len(misses) > _SHOWN_MISSES:
        shown.append(f"and {len(misses) - _SHOWN_MISSES} more")
    return _Ending(CheckVerdict.FAIL, "; ".join(shown), misses[0].what, check.advice)


def _broke(check: Check, context: Context, error: Exception) -> _Ending:
    """The traceback into the validation's log; ours are told by their code, others by their type."""
    _log.warning("The check %s broke: %s", check.id, error)
    where = _keep_traceback(check, context.log_path, error)
    if isinstance(error, Wan22Error):
        return _Ending(CheckVerdict.ERROR, error.message, error.code, error.next_action, where)
    kind, place = type(error).__name__, where or "the output of this process"
    return _Ending(CheckVerdict.ERROR, f"{kind}: {error}", kind, f"Look at the traceback in {place}.", where)


def _keep_traceback(check: Check, path: Path, error: Exception) -> str | None:
    """Where it is; None where the log takes nothing, and it is printed instead: the results so far must not be lost."""
    text = f"{check.id}\n{''.join(traceback.format_exception(error))}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(text)
    except OSError as unwritten:
        _log.warning("%s can't be written: %s\n%s", path, unwritten.strerror or unwritten, text)
        return None
    return str(path)


def _result(check: Check, case: Case, ending: _Ending) -> CheckResult:
    return CheckResult(
        id=check.id,
        category=check.category,
        behaviour=check.behaviour,
        title=check.title,
        severity=check.severity,
        looked_at=case.looked_at,
        on_snapshot=case.on_snapshot,
        observations=case.observations,
        wall_s=time.perf_counter() - case.began,
        **ending._asdict(),
    )
