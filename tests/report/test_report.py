"""What people and programs read of a run: whole, escaped, offline, honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.builders import make_run_record, make_samples
from wan22core.errors import UserInputError
from wan22core.records import (
    Alert,
    AlertLevel,
    AppliedSetting,
    Recommendation,
    RegressionVerdict,
    RunError,
    RunRecord,
    Stage,
    VerdictValue,
)
from wan22core.report.document import SCHEMA_FILE, load_run, run_document, run_schema, write_document
from wan22core.report.html import to_html
from wan22core.report.junit import to_junit
from wan22core.report.markdown import to_markdown
from wan22core.report.text import to_text
from wan22core.targets import Severity

NASTY = "<script>alert(1)</script> \" onload='x' ]]> | `code` \x07"
ERROR = RunError(code="TIMEOUT", message=f"It hung: {NASTY}", next="Look at the log.", stage=Stage.DECODE, log="w.log")


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return make_run_record()


@pytest.fixture(scope="module")
def nasty() -> RunRecord:
    plain = make_run_record()
    spec = plain.spec.model_copy(update={"workload": plain.spec.workload.model_copy(update={"prompt": NASTY})})
    labels = plain.labels.model_copy(update={"device_name": NASTY})
    changes = {"spec": spec, "labels": labels, "summary": NASTY, "error": ERROR, "command": f"wan22 {NASTY}"}
    return plain.model_copy(update=changes)


class Page(HTMLParser):
    """Collects the tags, what they load, and which are open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(record: RunRecord) -> None:
    """Every tag is closed; nothing is loaded from anywhere."""
    text = to_html(record, make_samples())
    page = Page(text)
    assert (page.open, page.loads, "script" in page.tags) == ([], [], False)
    assert re.findall(r"url\(|@import|https?://", text) == []
    assert text.count('class="bar"') == 6
    assert text.count('class="curve"') == 2
    assert text.count("<th scope=") > 20


def test_everything_shown_is_escaped(nasty: RunRecord) -> None:
    """No text of a record becomes markup, in the page or in Markdown."""
    text = to_html(nasty, make_samples())
    page = Page(text)
    assert ("script" in page.tags, page.handlers) == (False, [])
    assert "&lt;script&gt;" in text
    prose = to_markdown(nasty).rpartition("```sh")[0]
    assert "<script>" not in prose
    assert all(line.count(" | ") == 5 for line in prose.splitlines() if line.startswith("| model\\_load"))


def test_what_is_missing_is_said(record: RunRecord) -> None:
    """Never zero, never blank: not measured, and why."""
    page = to_html(record, [])
    assert "Memory over time: not measured (the run uses no GPU)" in page
    assert "not measured" in to_text(record)
    assert "asserted for ti2v-5b 2s-720p, this is tiny smoke" in to_markdown(record)
    assert "nothing is said about image quality" in to_text(record)


def test_a_broken_run_says_what_to_do(nasty: RunRecord) -> None:
    """The cause and the next action stand in every form for people."""
    for text in (to_html(nasty, []), to_markdown(nasty), to_text(nasty)):
        assert "Look at the log." in text


def test_host_settings_are_shown_where_there_are_any(record: RunRecord) -> None:
    """What was asked beside what was read back, and why one does not hold."""
    heading = "Host settings: asked, read back"
    assert heading not in to_markdown(record) + to_html(record, [])
    held = AppliedSetting(name="threads", asked="16", read_back="16", held=True)
    refused = AppliedSetting(name="numa_node", asked="CPUs 7", read_back=None, held=False, reason=NASTY)
    shown = record.model_copy(update={"settings": [held, refused]})
    markdown, page = to_markdown(shown), to_html(shown, [])
    assert "| threads | 16 | 16 | yes |  |" in markdown
    assert "| numa node | CPUs 7 | not read back | no | &lt;script&gt;" in markdown
    assert heading in markdown and heading in page and "<script>" not in page
    assert '<tr><th scope="row">threads</th><td>16</td><td>16</td><td>yes</td><td></td></tr>' in page


def test_the_terminal_gets_forty_lines(record: RunRecord) -> None:
    """The last one says where the report is."""
    lines = to_text(record.model_copy(update={"files": {"report_html": "/runs/r/report.html"}})).splitlines()
    assert len(lines) <= 40
    assert lines[-1] == "Report: /runs/r/report.html"


def test_the_document_round_trips_and_follows_the_published_schema(record: RunRecord, tmp_path: Path) -> None:
    """The schema in docs is the one in force; run.json validates and is read back equal."""
    assert json.loads(SCHEMA_FILE.read_text()) == run_schema(), "run: python -m wan22core.report.document"
    jsonschema.validate(run_document(record), run_schema())
    write_document(tmp_path, record)
    assert load_run(tmp_path) == record


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"run_id": 1}'])
def test_what_is_no_run_is_refused(tmp_path: Path, text: str | None) -> None:
    """One sentence that names the file."""
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserInputError, match=r"run\.json"):
        load_run(tmp_path)


def test_secrets_are_blotted_out(record: RunRecord) -> None:
    """A token or a password that got into a text does not leave in the document."""
    token = "hf_" + "a1B2" * 8
    leaky = record.model_copy(update={"command": f"HF_TOKEN={token} wan22 --x postgresql://me:pw@host/db"})
    text = json.dumps(run_document(leaky))
    assert (token in text, "me:pw" in text, "hf_***" in text) == (False, False, True)


def test_junit_counts_what_it_holds(nasty: RunRecord) -> None:
    """Not measured is skipped, the break is an error, control characters are gone."""
    suite = ElementTree.fromstring(to_junit(nasty))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "7", "failures": "0", "errors": "1", "skipped": "5"}
    missed = make_run_record(cuda=True)
    worse = [target.model_copy(update={"verdict": VerdictValue.FAIL}) for target in missed.targets]
    suite = ElementTree.fromstring(to_junit(missed.model_copy(update={"targets": worse})))
    assert (suite.get("failures"), suite.get("skipped")) == ("3", "2"), "what is a warning turns no CI system red"


def test_recommendations_are_shown_escaped_and_only_when_there_are_any(record: RunRecord) -> None:
    """Rule, reason, action and effect in every form for people; no word of them becomes markup."""
    assert not any("Recommendations" in text for text in (to_html(record, []), to_markdown(record), to_text(record)))
    advice = Recommendation(
        rule="gpu_waits",
        because=f"A kernel ran in 61 % of the denoise. {NASTY}",
        action="Compile the blocks.",
        expected="A generation of 110 s instead of 140 s.",
        expected_gain=0.21,
        docs="docs/recommendations.md#gpu_waits",
    )
    advised = record.model_copy(update={"recommendations": [advice]})
    page, prose, text = to_html(advised, []), to_markdown(advised), to_text(advised)
    parsed = Page(page)
    assert ("script" in parsed.tags, parsed.handlers, parsed.open) == (False, [], [])
    (row,) = [line for line in prose.splitlines() if line.startswith("| gpu\\_waits")]
    assert ("<script>" in prose, row.count(" | ")) == (False, 4)
    for form in (page, prose, text):
        assert all(words in form for words in ("Recommendations", advice.action, advice.expected))


def test_alerts_and_regressions_are_shown_where_there_are_any(record: RunRecord) -> None:
    """In every form for people; an alert that is still open lasts to the end."""
    forms = (to_html(record, []), to_markdown(record), to_text(record))
    assert not any("Health" in text or "health:" in text or "baseline" in text for text in forms)
    alert = Alert(
        quantity="vram", level=AlertLevel.WARNING, threshold=85, worst=91.2, unit="%", opened_s=40, action=NASTY
    )
    slower = RegressionVerdict(
        metric="generation_s", unit="s", baseline=100, observed=108, ratio=1.08, ratio_low=1.06, ratio_high=1.1,
        allowed=0.05, n_baseline=5, n=5, severity=Severity.CRITICAL, verdict=VerdictValue.FAIL, reason="+8.0 %",
    )  # fmt: skip
    shown = record.model_copy(update={"alerts": [alert], "regressions": [slower]})
    page, prose, text = to_html(shown, []), to_markdown(shown), to_text(shown)
    assert "<script>" not in page
    assert "| vram | warning | 85 % | 91.2 % | 40 s to the end | " in prose
    assert "<td>40 s to the end</td>" in page
    assert "<td>108 s</td><td>fail</td><td>+8.0 %</td>" in page
    assert "health: vram warning 85 % 91.2 % 40 s to the end" in text
    assert "generation_s         100 s  108 s  fail     +8.0 %" in text
    failures = ElementTree.fromstring(to_junit(shown)).findall("testcase[@classname='wan22.regressions']/failure")
    assert [each.get("message") for each in failures] == ["108 s, 100 s in the baseline. +8.0 %"]
