"""The command line as people and pipelines use it: real processes, a real Prefect server, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.flows.shell import LONG, Shell

_SPEC_COMMAND = "wan22 benchmark --spec spec.json  # spec.json: the key spec of run.json"

_MAIN_THEN_MODULES = """
import sys
from flows.cli.main import cli
from flows.cli.output import run_guarded
code = run_guarded(cli)
print(f"torch: {'torch' in sys.modules}, prefect: {'prefect' in sys.modules}", file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[Shell, dict[str, Any]]]:
    """One whole run of tiny through the command line, shared by the tests that read it."""
    shell = Shell(tmp_path_factory.mktemp("cli") / "data")
    arguments = ["benchmark", "--model", str(tiny_checkpoint), "--workload", "smoke", "--steps", "2", "--frames", "5"]
    arguments += ["--repeats", "1", "--warmups", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", _MAIN_THEN_MODULES, *arguments],
        capture_output=True, text=True, env=shell.environment, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch: False, prefect: True" in done.stderr, "the parent never imports torch, after a whole flow either"
    yield shell, json.loads(done.stdout)
    assert shell.left_after(1.0) == []


@LONG
def test_benchmark_prints_one_document(measured: tuple[Shell, dict[str, Any]]) -> None:
    """Integrity passes, the targets are not measured with their reason, the labels tell what was run."""
    _, run = measured
    assert (run["verdict"], run["integrity"]["verdict"], run["integrity"]["failed"]) == ("NotMeasured", "pass", [])
    assert {target["verdict"] for target in run["targets"]} == {"not_measured"}
    assert "asserted for ti2v-5b 2s-720p, this is tiny" in run["targets"][0]["reason"]
    assert (run["labels"]["weights_source"], run["labels"]["architecture"]) == ("random", "tiny")
    assert run["repeats"][-1]["frames_produced"] == 5
    for path in run["files"].values():
        assert Path(path).is_file()
    assert run["command"].startswith("wan22 benchmark --model ")


@LONG
def test_gate_judges_the_run_by_its_exit_code(measured: tuple[Shell, dict[str, Any]], tmp_path: Path) -> None:
    """A required target that is not measured is 3, and the JUnit file says skipped."""
    shell, run = measured
    done = shell.run("gate", "--run", run["run_id"][:15], "--json", "--junit", str(tmp_path / "gate.xml"))
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"], document["run_id"]) == (3, 3, run["run_id"])
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (suite.get("skipped"), suite.get("failures")) == ("5", "0")


@LONG
def test_history_and_report_know_the_run(measured: tuple[Shell, dict[str, Any]]) -> None:
    """It is in the history, and its report can be had again in every form."""
    shell, run = measured
    listed = json.loads(shell.run("history", "list", "--json").stdout)["runs"]
    assert [each["run_id"] for each in listed] == [run["run_id"]]
    for form, sign in (
        ("md", "## Targets"),
        ("json", '"run_id"'),
        ("html", "<!doctype html>"),
        ("junit", "<testsuite"),
    ):
        done = shell.run("report", run["run_id"], "--format", form)
        assert done.returncode == 0, done.stderr
        assert sign in done.stdout


def test_a_run_that_is_there_is_judged_as_it_is(measured: tuple[Shell, dict[str, Any]], tmp_path: Path) -> None:
    """Other targets beside --run would be ignored, and so would an empty id: both are refused."""
    shell, document = measured
    beside = shell.run("gate", "--run", document["run_id"], "--targets", str(tmp_path / "targets.json"))
    assert (beside.returncode, "targets_file was given beside it" in beside.stderr) == (2, True)
    assert shell.run("gate", "--run", "").returncode == 2


@LONG
def test_a_gate_compares_with_a_baseline(measured: tuple[Shell, dict[str, Any]], tmp_path: Path) -> None:
    """The policy says what must hold; a name that is not there and a thin comparison are said."""
    shell, run = measured
    assert shell.run("history", "baseline", "set", "first", run["run_id"], "--note", "a start").returncode == 0
    listed = json.loads(shell.run("history", "baseline", "list", "--json").stdout)["baselines"]
    assert [(each["name"], each["run_id"], each["note"]) for each in listed] == [("first", run["run_id"], "a start")]
    done = shell.run("gate", "--run", run["run_id"], "--baseline", "first", "--json")
    regressions = {each["metric"]: each["reason"] for each in json.loads(done.stdout)["regressions"]}
    assert done.returncode == 3
    assert regressions["generation_s"] == "1 repeats there and 1 here, 5 are needed on each side"
    missing = shell.run("gate", "--run", run["run_id"], "--baseline", "second")
    assert (missing.returncode, "Baselines are: first" in missing.stderr) == (2, True)
    (tmp_path / "policy.json").write_text(json.dumps({"required": ["speed"]}))
    wrong = shell.run("gate", "--run", run["run_id"], "--policy", str(tmp_path / "policy.json"))
    assert (wrong.returncode, "names speed" in wrong.stderr) == (2, True)
