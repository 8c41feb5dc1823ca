"""Checks, and what their children do."""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wan22core.targets import Severity
from wan22core.validation.case import Case
from wan22core.validation.expectations import at_least, equal
from wan22core.validation.registry import Check


def hang(report: object) -> dict[str, Any]:
    ctypes.PyDLL(None).sleep(600)  # a C call that keeps the interpreter's lock
    return {}


def passes(case: Case) -> None:
    case.look_at("two and two")
    case.expect("their sum", equal(4), 2 + 2)
    case.fact("their product", 2 * 2)


def misses(case: Case) -> None:
    case.expect("their sum", at_least(5), 2 + 2)


def breaks(case: Case) -> None:
    case.expect("their sum", equal(4), 2 + 2)
    raise RuntimeError("this check is broken")


def skips(case: Case) -> None:
    case.not_measured("there is no abacus", "Buy one.")


def misses_then_skips(case: Case) -> None:
    misses(case)
    skips(case)


def expects_nothing(case: Case) -> None:
    case.fact("their sum", 2 + 2)


def is_interrupted(case: Case) -> None:
    passes(case)
    raise KeyboardInterrupt


def is_stuck(case: Case) -> None:
    """In this very process, which no deadline of a child ends."""
    time.sleep(120)


def takes_the_folder(case: Case) -> None:
    """Whoever does this while a validation runs, nothing can be written there afterwards."""
    passes(case)
    shutil.rmtree(case.context.folder)
    case.context.folder.touch()


def hangs(case: Case) -> None:
    case.job("tests.validation.jobs:hang", {})


def check(
    run: Callable[[Case], None], *, category: str = "sums", severity: Severity = Severity.CRITICAL, **more: Any
) -> Check:
    """A check that is called as its function is."""
    name = f"{category}.{run.__name__}"
    return Check(name, category, "adding", "Two and two are four", run, "Learn to add.", severity, **more)


CHECKS = (check(passes, category="outside"), check(skips, category="outside"))
NOT_CHECKS = ("neither this",)
TAKEN = (check(passes, category="outside"),)
HANGING = (check(hangs, category="outside"),)
FAILING = (check(misses, category="failing"),)
CUT_OFF = (check(is_interrupted, category="a_cut_off"), check(passes, category="b_left"))
TAKES_THE_FOLDER = (check(takes_the_folder, category="outside"),)
STUCK = (check(is_stuck, category="stuck", deadline_s=1.0),)


def distribution(folder: Path, **entry_points: str) -> Path:
    """What installing a package with these entry points leaves, in a folder for ``sys.path``."""
    info = folder / "outside-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[wan22.validation_checks]\n{lines}")
    return folder
