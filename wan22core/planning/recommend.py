"""What to change after a run: the rules that fire on what it measured, ordered by what the planner expects of them.

Other packages add rules by the entry point group ``wan22.recommendation_rules``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points

from wan22core.planning.effect import Effect, effect_of, outlook_of
from wan22core.planning.rule import Rule
from wan22core.planning.rules import RULES
from wan22core.planning.run_metrics import Metrics, measured_metrics
from wan22core.records import Recommendation, RunRecord, Sample

ENTRY_POINTS = "wan22.recommendation_rules"
_log = logging.getLogger(__name__)


def recommend(
    record: RunRecord, samples: Sequence[Sample], rules: Sequence[Rule] | None = None
) -> list[Recommendation]:
    """The advice that follows from a run; ``rules`` None takes ours and those of installed packages.

    A run that was resumed, fell back or needed another attempt gets advice too, on what it really ran: the row enters
    no comparison, and is still about this machine. Nothing fires on a figure that is missing.
    """
    return advise(record, measured_metrics(record, samples), known_rules() if rules is None else rules)


def advise(record: RunRecord, metrics: Metrics, rules: Sequence[Rule]) -> list[Recommendation]:
    """``recommend`` on figures that are known: largest expected gain first, unknown ones last, then by identifier."""
    found = [advice for rule in rules if (advice := _guarded(rule, record, metrics)) is not None]
    return sorted(found, key=lambda each: (each.expected_gain is None, -(each.expected_gain or 0.0), each.rule))


def _guarded(rule: Rule, record: RunRecord, metrics: Metrics) -> Recommendation | None:
    """What one rule says; a rule that fails says nothing, and a line in the log names it."""
    try:
        return _advised(rule, record, metrics)
    except Exception as error:  # noqa: BLE001 - another package's rule may raise anything, and costs no report
        _log.warning(
            "The rule %s gives no advice on this run (%s: %s): repair it, or uninstall the package that it is from.",
            rule.id,
            type(error).__name__,
            error,
        )
        return None


def _advised(rule: Rule, record: RunRecord, metrics: Metrics) -> Recommendation | None:
    because = rule.because(metrics)
    if not because:
        return None
    effect = effect_of(rule, outlook_of(record))
    if not _is_worth_it(rule, effect):
        return None
    return Recommendation(
        rule=rule.id,
        because=because,
        action=rule.action,
        expected=effect.expected,
        expected_gain=effect.gain,
        docs=rule.docs or f"docs/recommendations.md#{rule.id}",
    )


def known_rules() -> list[Rule]:
    """Our rules and those of installed packages; what is wrong with a package's is logged, and the others stay."""
    found = {rule.id: rule for rule in RULES}
    for point in entry_points(group=ENTRY_POINTS):
        for rule in _rules_of(point):
            if rule.id in found:
                _log.warning("%s gives a second rule %r, which is left out: rename it.", _name(point), rule.id)
            else:
                found[rule.id] = rule
    return list(found.values())


def _rules_of(point: EntryPoint) -> list[Rule]:
    """The rules behind an entry point: a rule, several, or a function that gives them."""
    try:
        given = point.load()
        if callable(given):
            given = given()
        rules = [given] if isinstance(given, Rule) else list(given) if isinstance(given, Iterable) else [given]
        if wrong := {type(each).__name__ for each in rules if not isinstance(each, Rule)}:
            raise TypeError(f"it gives {', '.join(sorted(wrong))} and not Rule")
    except Exception as error:  # noqa: BLE001 - another package may raise anything, and must not cost the run its report
        _log.warning(
            "%s gives no rules of advice (%s: %s): repair or uninstall the package.",
            _name(point),
            type(error).__name__,
            error,
        )
        return []
    return rules


def _name(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an unknown package"
    return f"The entry point {point.name} = {point.value} of {package}"


def _is_worth_it(rule: Rule, effect: Effect) -> bool:
    return rule.least_gain is None or (effect.gain is not None and effect.gain >= rule.least_gain)
