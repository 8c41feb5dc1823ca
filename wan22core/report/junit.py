"""A run as JUnit XML, for the test views of CI systems."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from wan22core.records import RegressionVerdict, RunRecord, TargetVerdict, VerdictValue
from wan22core.report import view
from wan22core.targets import Severity

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def to_junit(record: RunRecord) -> str:
    """One case per target and compared metric, one for integrity; what was not measured is skipped, with its reason."""
    suite = ElementTree.Element("testsuite", name="wan22")
    case = ElementTree.SubElement(suite, "testcase", classname="wan22", name="integrity")
    if record.integrity.failed:
        ElementTree.SubElement(case, "failure", message=_clean("; ".join(view.failures(record))))
    if record.error is not None:
        run = ElementTree.SubElement(suite, "testcase", classname="wan22", name="run")
        ElementTree.SubElement(run, "error", type=record.error.code, message=_clean(record.error.message))
    for target in record.targets:
        found = f"{view.limit(target)}, worst {view.number(target.observed, target.unit)}. {target.reason or ''}"
        _add(suite, "wan22.targets", target.name, target, found)
    for each in record.regressions:
        found = f"{view.number(each.observed, each.unit)}, {view.number(each.baseline, each.unit)} in the baseline"
        _add(suite, "wan22.regressions", each.metric, each, f"{found}. {each.reason or ''}")
    for kind in ("failure", "error", "skipped"):
        name = "errors" if kind == "error" else f"{kind}s" if kind == "failure" else kind
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _add(
    suite: ElementTree.Element, classname: str, name: str, judged: TargetVerdict | RegressionVerdict, text: str
) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=classname, name=name)
    if judged.verdict is VerdictValue.FAIL and judged.severity is Severity.CRITICAL:
        ElementTree.SubElement(case, "failure", type=judged.severity.value, message=_clean(text))
    elif judged.verdict is VerdictValue.FAIL:  # a CI system would turn red for what the gate lets pass
        ElementTree.SubElement(case, "skipped", message=_clean(f"Missed, and it does not count: {text}"))
    elif judged.verdict is VerdictValue.NOT_MEASURED:
        ElementTree.SubElement(case, "skipped", message=_clean(text))


def _clean(text: str) -> str:
    """XML has no way to write most control characters."""
    return _CONTROL.sub("", text)
