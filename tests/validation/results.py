"""What the tests of the checks share: a check's result by its name, and children that answer what a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wan22core.records import CheckResult, CheckVerdict
from wan22core.settings import Settings
from wan22core.validation import planned
from wan22core.validation.case import Case
from wan22core.validation.context import Context
from wan22core.validation.registry import checks
from wan22core.validation.runner import run

SNAPSHOTS = Path(planned.__file__).parent / "snapshots"
BY_ID = {check.id: check for check in checks()}


def result_of(name: str, context: Context | None = None) -> CheckResult:
    return run(BY_ID[name], context or Context.new("20261124T100000-abcdef", Settings()))


def misses(result: CheckResult) -> list[str]:
    assert result.verdict is CheckVerdict.FAIL, result.reason
    return [each.what for each in result.observations if each.held is False]


def answered(monkeypatch: pytest.MonkeyPatch, **document: Any) -> list[dict[str, Any]]:
    """What the child would send; returns what it was asked for."""
    asked: list[dict[str, Any]] = []

    def job(_case: Case, _dotted: str, arguments: dict[str, Any], *_: object) -> dict[str, Any]:
        asked.append(arguments)
        return document

    monkeypatch.setattr(Case, "job", job)
    return asked
