"""The registry: our checks, and those of other packages, broken ones included."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.validation.jobs import distribution
from wan22core.errors import UnknownNameError
from wan22core.records import CheckVerdict
from wan22core.settings import Settings
from wan22core.validation.context import Context
from wan22core.validation.registry import CATEGORIES, by_category, checks
from wan22core.validation.runner import run


def test_our_categories_cover_the_behaviours() -> None:
    """Four each, every check named after its category, no name twice."""
    grouped = by_category(checks())
    assert {name: len({each.behaviour for each in found}) for name, found in grouped.items()} == {
        "rtx_4080": 4, "threadripper_pro": 4,
    }  # fmt: skip
    names = [each.id for each in checks()]
    assert len(set(names)) == len(names)
    assert all(each.id.startswith(f"{each.category}.") for each in checks())
    assert [each.category for each in checks(["threadripper_pro"])] == ["threadripper_pro"] * 10


def test_an_unknown_category_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError) as caught:
        checks(["rtx_4080", "rtx_4090"])
    assert "'rtx_4090'" in caught.value.message
    assert all(name in caught.value.next_action for name in CATEGORIES)


def test_another_package_adds_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point, in a category of its own."""
    monkeypatch.syspath_prepend(distribution(tmp_path, sums="tests.validation.jobs:CHECKS"))
    found = checks(["outside"])
    assert [each.id for each in found] == ["outside.passes", "outside.skips"]
    context = Context.new("x", Settings())
    assert [run(each, context).verdict.value for each in found] == ["pass", "not_measured"]
    assert len(checks()) > len(found)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("tests.validation.nowhere:CHECKS", "ModuleNotFoundError"),
        ("tests.validation.jobs:NOWHERE", "AttributeError"),
        ("tests.validation.jobs:passes", "TypeError"),
        ("tests.validation.jobs:NOT_CHECKS", "holds str, which is no Check"),
    ],
)
def test_an_entry_point_that_does_not_load_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, why: str
) -> None:
    """In every selection, with its name; the others are there."""
    monkeypatch.syspath_prepend(distribution(tmp_path, mine=value))
    found = checks(["threadripper_pro"])
    result = run(found[-1], Context.new("x", Settings()))
    assert (len(found), result.id, result.verdict) == (11, "extensions.mine", CheckVerdict.ERROR)
    assert value in (result.reason or "")
    assert why in (result.reason or "")


def test_a_name_that_is_taken_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one stays."""
    entries = {"a_sums": "tests.validation.jobs:CHECKS", "b_sums": "tests.validation.jobs:TAKEN"}
    monkeypatch.syspath_prepend(distribution(tmp_path, **entries))
    found = checks(["outside"])
    assert [each.id for each in found] == ["outside.passes", "outside.skips", "extensions.outside.passes"]
    result = run(found[-1], Context.new("x", Settings()))
    assert (result.verdict, result.cause) == (CheckVerdict.ERROR, "BrokenExtensionError")
