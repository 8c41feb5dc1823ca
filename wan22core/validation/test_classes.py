"""The original's test classes over the registry: one test a check, and what is not measured is skipped with its reason.

``python -m pytest --pyargs wan22core.validation.test_classes::RTX4080OptimizationValidationTests`` or
``python -m unittest wan22core.validation.test_classes``.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import ClassVar

from wan22core.records import CheckVerdict
from wan22core.session.folder import new_run_id
from wan22core.settings import Settings
from wan22core.validation.context import Context
from wan22core.validation.registry import Check, checks
from wan22core.validation.runner import run


class _CategoryTests(unittest.TestCase):
    """One category; a subclass names it."""

    category: ClassVar[str | None] = None
    context: ClassVar[Context]

    def __init_subclass__(cls) -> None:
        for check in checks([cls.category]) if cls.category is not None else []:
            setattr(cls, f"test_{check.id.partition('.')[2]}", _test_of(check))

    @classmethod
    def setUpClass(cls) -> None:
        cls.context = Context.new(new_run_id(), Settings())


def _test_of(check: Check) -> Callable[[_CategoryTests], None]:
    def test(self: _CategoryTests) -> None:
        result = run(check, self.context)
        if result.verdict is CheckVerdict.NOT_MEASURED:
            self.skipTest(result.reason or "")
        self.assertIs(result.verdict, CheckVerdict.PASS, result.reason)

    test.__doc__ = check.title
    return test


class RTX4080OptimizationValidationTests(_CategoryTests):
    """Detection and settings, VRAM, quantization and performance of an RTX 4080."""

    category = "rtx_4080"


class ThreadripperPROOptimizationValidationTests(_CategoryTests):
    """Detection and settings, CPU utilisation, memory and scaling of a Threadripper PRO."""

    category = "threadripper_pro"
