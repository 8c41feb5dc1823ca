"""Rules of advice from other packages, by a real entry point."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.hardware.machines import write
from tests.planning.runs import run
from wan22core.planning.recommend import known_rules, recommend
from wan22core.planning.rules import RULES

PLUGIN = """
from wan22core.planning.rule import Condition, Rule

HOT = Rule(
    id="too_many_threads",
    triggers=(Condition(metric="threads", comparison=">", threshold=4),),
    action="Use fewer threads.",
    measure="Compare.",
    docs="https://example.com/threads",
)

def several():
    return [HOT.model_copy(update={"id": "second"}), HOT.model_copy(update={"id": "third"})]

def fails():
    raise RuntimeError("no licence")

def something_else():
    return ["a sentence", None]

OURS = HOT.model_copy(update={"id": "gpu_waits"})
"""
POINTS = """[wan22.recommendation_rules]
one = advice_plugin:HOT
many = advice_plugin:several
breaks = advice_plugin:fails
other = advice_plugin:something_else
gone = no_such_module:rules
twice = advice_plugin:OURS
"""


def test_an_installed_package_adds_rules_and_a_broken_one_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rules of another distribution fire; what is wrong with one is a sentence that names its entry point."""
    write(
        tmp_path,
        {
            "advice_plugin.py": PLUGIN,
            "advice_plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: advice-plugin\nVersion: 1.0\n",
            "advice_plugin-1.0.dist-info/entry_points.txt": POINTS,
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.WARNING):
        added = [rule.id for rule in known_rules()][len(RULES) :]
    assert sorted(added) == ["second", "third", "too_many_threads"]
    said = {message.split()[3]: message for message in caplog.messages}
    assert said.keys() == {"breaks", "other", "gone", "twice"}
    assert all("advice-plugin" in message for message in said.values())
    assert "RuntimeError: no licence" in said["breaks"]
    assert "it gives NoneType, str and not Rule" in said["other"]
    (advice,) = [each for each in recommend(*run()) if each.rule == "too_many_threads"]
    assert (advice.because, advice.docs) == ("threads is 8, and the threshold is 4.", "https://example.com/threads")
