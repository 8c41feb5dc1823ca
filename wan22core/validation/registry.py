"""The checks there are: our own categories, and what other packages add by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from wan22core.errors import UnknownNameError
from wan22core.targets import Severity
from wan22core.validation.case import Case

ENTRY_POINTS = "wan22.validation_checks"
"""Group under which another package names a sequence of ``Check``s, e.g. ``my_checks = "my_package.checks:CHECKS"``."""

EXTENSIONS = "extensions"
"""Category of what could not be loaded: nobody knows which category it would have added to."""

_OWN = {
    "rtx_4080": "wan22core.validation.rtx_4080",
    "threadripper_pro": "wan22core.validation.threadripper_pro",
}
"""Our categories and the modules whose ``CHECKS`` they are; imported when they are asked for."""

CATEGORIES = tuple(_OWN)


@dataclass(frozen=True)
class Check:
    """One thing to prove about the system."""

    id: str
    """``category.name``."""
    category: str
    behaviour: str
    """The behaviour of the system that it is a part of."""
    title: str
    """What it proves, in words."""
    run: Callable[[Case], None]
    """Observes and expects on the case; what it raises is an error."""
    advice: str
    """What to do when it fails, a sentence."""
    severity: Severity = Severity.CRITICAL
    deadline_s: float = 300.0
    """Seconds after which each child process that it starts is killed."""


def checks(categories: Sequence[str] = ()) -> list[Check]:
    """The checks of these categories, of all without any, in order.

    An entry point that does not load, or whose check takes an id that is there already, is a check that raises why: it
    belongs to every selection. Raises ``UnknownNameError`` for a category that nobody has.
    """
    found: list[Check] = []
    for each in (*_own(), *_from_outside()):
        taken = any(each.id == other.id for other in found)
        found.append(_broken(each.id, f"two checks are called {each.id}") if taken else each)
    known = dict.fromkeys([*CATEGORIES, *(each.category for each in found if each.category != EXTENSIONS)])
    if unknown := [name for name in categories if name not in known]:
        raise UnknownNameError(
            f"There is no category {unknown[0]!r} of checks.", next_action=f"The categories are: {', '.join(known)}."
        )
    return [each for each in found if not categories or each.category in (*categories, EXTENSIONS)]


def by_category(found: Sequence[Check]) -> dict[str, list[Check]]:
    """The checks by their category, in order."""
    return {
        name: [each for each in found if each.category == name] for name in dict.fromkeys(c.category for c in found)
    }


def _own() -> Iterator[Check]:
    for module in _OWN.values():
        yield from importlib.import_module(module).CHECKS


def _from_outside() -> Iterator[Check]:
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        yield from _loaded(entry)


def _loaded(entry: EntryPoint) -> list[Check]:
    try:
        found = list(entry.load())
    except Exception as error:  # noqa: BLE001 - another package's code: whatever it raises is shown as a broken check
        return [_broken(entry.name, f"{entry.value} does not load: {type(error).__name__}: {error}")]
    if strange := [each for each in found if not isinstance(each, Check)]:
        return [_broken(entry.name, f"{entry.value} holds {type(strange[0]).__name__}, which is no Check")]
    return found


class BrokenExtensionError(Exception):
    """What another package added can't be used."""


def _broken(name: str, why: str) -> Check:
    def run(_case: Case) -> None:
        raise BrokenExtensionError(why)

    return Check(
        id=f"{EXTENSIONS}.{name}",
        category=EXTENSIONS,
        behaviour="extensions load",
        title=f"The checks of the entry point {name} can be used",
        run=run,
        advice=f"Mend or remove the package of the entry point {name}.",
    )
