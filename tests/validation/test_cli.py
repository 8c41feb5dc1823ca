"""``wan22 validate``, the flow and the test classes, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import psutil
import pytest

from tests.validation.jobs import distribution
from wan22core.validation.document import SCHEMA_FILE, validation_schema
from wan22core.validation.registry import checks

WAN22 = [str(Path(sys.executable).with_name("wan22")), "validate"]
ROOT = Path(__file__).parents[2]
THEN_MODULES = """
import sys
from flows.cli.main import cli
from flows.cli.output import run_guarded
code = run_guarded(cli)
heavy = [name for name in ("torch", "diffusers", "prefect", "great_expectations", "pandas") if name in sys.modules]
print(f"heavy: {heavy}", file=sys.stderr)
sys.exit(code)
"""
LONG = pytest.mark.timeout(240)


def environment(tmp_path: Path, **entry_points: str) -> dict[str, str]:
    """A data folder of its own, and a package with these entry points."""
    found = {**os.environ, "WAN22_DATA_DIR": str(tmp_path / "data"), "NO_COLOR": "1"}
    found.pop("PREFECT_API_URL", None)
    return {**found, "PYTHONPATH": str(distribution(tmp_path / "outside", **entry_points))}


def call(command: list[str], of: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=of, cwd=ROOT, timeout=200, check=False)


def document_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one document on stdout, as the published schema has it."""
    document: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(document, validation_schema())
    return document


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == validation_schema(), "run: python -m wan22core.validation.document"


@LONG
def test_validate_prints_one_document_and_keeps_it(tmp_path: Path) -> None:
    """Every check of the category with verdict and time; the history lists it, and its folder has it.

    This process never imports torch, whatever the checks do in children.
    """
    of = environment(tmp_path)
    done = call([sys.executable, "-c", THEN_MODULES, "validate", "--category", "threadripper_pro", "--json"], of)
    document = document_of(done)
    assert "heavy: []" in done.stderr
    assert (done.returncode, [each["name"] for each in document["categories"]]) == (0, ["threadripper_pro"])
    results = document["categories"][0]["checks"]
    assert [each["id"] for each in results] == [each.id for each in checks(["threadripper_pro"])]
    passed = sum(each["verdict"] == "pass" for each in results)
    assert document["success_rate"] == document["categories"][0]["success_rate"] == passed / len(results)
    assert (document["critical"], document["warnings"]) == ([], [])
    listed = json.loads(call([*WAN22, "--history", "--json"], of).stdout)["validations"]
    assert [each["id"] for each in listed] == [document["id"]]
    kept = tmp_path / "data" / "validations" / document["id"] / "validation.json"
    assert json.loads(kept.read_text()) == document


def test_a_broken_extension_fails_the_validation(tmp_path: Path) -> None:
    """Exit 1; the text names it, what passed and what was not measured."""
    done = call(
        [*WAN22, "--category", "outside"], environment(tmp_path, a="tests.validation.jobs:CHECKS", b="nowhere:X")
    )
    assert done.returncode == 1
    assert "outside.skips: there is no abacus." in done.stdout
    assert "extensions.b: BrokenExtensionError: nowhere:X does not load" in done.stdout
    assert "of this machine: fail, 33% of the checks passed (1 on the machine, 0 on packaged snapshots)" in done.stdout


def test_what_a_user_typed_is_exit_2(tmp_path: Path) -> None:
    """An unknown category and a folder without dumps, before anything runs."""
    of = environment(tmp_path)
    done = call([*WAN22, "--category", "rtx_4090", "--json"], of)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "UNKNOWN_NAME")
    done = call([*WAN22, "--from", str(tmp_path / "outside"), "--json"], of)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "INVALID_INPUT")
    assert not (tmp_path / "data" / "validations").exists()


@pytest.mark.parametrize(
    "options", [["--history", "--category", "rtx_4080"], ["--history", "--from", "."], ["--limit", "3"]]
)
def test_an_option_that_would_be_ignored_is_refused(options: list[str], tmp_path: Path) -> None:
    done = call([*WAN22, *options], environment(tmp_path))
    assert (done.returncode, "leave " in done.stderr) == (2, True)


def test_a_data_folder_that_can_not_be_written_is_told_at_once(tmp_path: Path) -> None:
    """Before any check runs."""
    of = environment(tmp_path, a="tests.validation.jobs:HANGING") | {"WAN22_DATA_DIR": "/proc/none"}
    done = call([*WAN22, "--category", "outside", "--json"], of)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (4, "STORAGE")
    assert "/proc/none/validations" in done.stderr


def test_a_report_that_can_not_be_written_is_printed(tmp_path: Path) -> None:
    """It is in the history all the same; stderr says where it is not."""
    of = environment(tmp_path, a="tests.validation.jobs:TAKES_THE_FOLDER")
    done = call([*WAN22, "--category", "outside", "--json"], of)
    document = document_of(done)
    assert (done.returncode, document["verdict"]) == (0, "pass")
    assert "The validation is not in its folder" in done.stderr
    listed = json.loads(call([*WAN22, "--history", "--json"], of).stdout)["validations"]
    assert [each["id"] for each in listed] == [document["id"]]


def test_prune_removes_old_validations(tmp_path: Path) -> None:
    """Their rows and their folders; younger ones stay."""
    of = environment(tmp_path, a="tests.validation.jobs:CHECKS")
    ids = [document_of(call([*WAN22, "--category", "outside", "--json"], of))["id"] for _ in range(2)]
    database = sqlite3.connect(tmp_path / "data" / "history.db")
    with database:
        database.execute("UPDATE validations SET created_at = '2020-01-01 00:00:00' WHERE id = ?", (ids[0],))
    database.close()
    done = call([WAN22[0], "history", "prune", "--older-than-days", "30", "--yes"], of)
    assert done.stdout == "Removed 0 runs, 1 validations and 1 folders.\n", done.stderr
    assert [path.name for path in (tmp_path / "data" / "validations").iterdir()] == [ids[1]]
    listed = json.loads(call([*WAN22, "--history", "--json"], of).stdout)["validations"]
    assert [each["id"] for each in listed] == [ids[1]]


def test_a_history_that_is_down_loses_no_report(tmp_path: Path) -> None:
    """The document is printed and kept; stderr says what to do."""
    of = environment(tmp_path, a="tests.validation.jobs:CHECKS") | {
        "WAN22_DATABASE_URL": "sqlite:////proc/none/history.db"
    }
    done = call([*WAN22, "--category", "outside", "--json"], of)
    document = document_of(done)
    assert (done.returncode, document["verdict"]) == (0, "not_measured")
    assert "The validation is not in the history" in done.stderr
    assert (tmp_path / "data" / "validations" / document["id"] / "validation.json").is_file()


@LONG
def test_ctrl_c_keeps_what_ran_and_ends_the_child(tmp_path: Path) -> None:
    """One document all the same, the rest not measured, exit 130."""
    of = environment(tmp_path, a="tests.validation.jobs:CHECKS", b="tests.validation.jobs:HANGING")
    command = [*WAN22, "--category", "outside", "--json"]
    with subprocess.Popen(command, env=of, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            assert time.monotonic() < until, "the child did not start within 60 s"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert (len(children), psutil.wait_procs(children, timeout=5)[1]) == (1, [])
    document = json.loads(output)
    verdicts = {each["id"]: each["verdict"] for each in document["categories"][0]["checks"]}
    assert (process.returncode, document["interrupted"]) == (130, True)
    assert verdicts == {"outside.passes": "pass", "outside.skips": "not_measured", "outside.hangs": "not_measured"}


_FLOW = """
import sys
from flows.local_server import prefect_api
from wan22core.settings import Settings
with prefect_api(Settings()) as url:
    from prefect.client.orchestration import get_client
    from flows.validation import validation
    import tasks.options
    tasks.options.BELT_S = 2.0
    chosen = (["outside"], ["failing"], ["a_cut_off", "b_left"], ["stuck"])
    states = [validation(categories=names, return_state=True) for names in chosen]
    with get_client(sync_client=True) as client:
        artifacts = sorted({each.key for each in client.read_artifacts()})
        tasks = sorted(each.name for each in client.read_task_runs())
    print([(state.type.value, state.name, state.message) for state in states], artifacts, tasks)
"""


@pytest.mark.slow
@LONG
def test_the_flow_has_a_task_a_category_and_a_state_by_the_verdict(tmp_path: Path) -> None:
    """Against a real server; the table is there, the history has all that ended.

    An interrupt keeps the next category from starting, and a check that is stuck in the flow's own process is ended.
    """
    names = ("CHECKS", "FAILING", "CUT_OFF", "STUCK")
    of = environment(tmp_path, **{name.lower(): f"tests.validation.jobs:{name}" for name in names})
    done = call([sys.executable, "-c", _FLOW], of)
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    here = "(1 on the machine, 0 on packaged snapshots)"
    assert f"('COMPLETED', 'NotMeasured', '50% of the checks passed {here}')" in last
    assert f"('FAILED', 'ValidationFailed', '0% of the checks passed {here.replace('1', '0')}')" in last
    assert f"('CANCELLED', 'Cancelled', 'interrupted; 0% of the checks passed {here.replace('1', '0')}')" in last
    assert "('FAILED', 'TimedOut', " in last
    assert "['validation', 'validation-report']" in last
    assert all(f"validate-{name}" in last for name in ("outside", "failing", "a_cut_off", "stuck"))
    assert "validate-b_left" not in last
    assert len(json.loads(call([*WAN22, "--history", "--json"], of).stdout)["validations"]) == 3


@LONG
def test_the_test_classes_run_under_pytest_and_unittest(tmp_path: Path) -> None:
    """One test a check; what is not measured is skipped with its reason."""
    of, module = environment(tmp_path), "wan22core.validation.test_classes"
    report = tmp_path / "junit.xml"
    chosen = ["-k", "detection or vram or performance", f"--junitxml={report}", "-p", "no:cacheprovider"]
    pytest_command = [sys.executable, "-m", "pytest", "--pyargs", f"{module}::RTX4080OptimizationValidationTests"]
    done = call([*pytest_command, *chosen], of)
    assert done.returncode == 0, done.stdout[-2000:]
    skipped = {
        case.get("name"): case.find("skipped").get("message")  # type: ignore[union-attr]
        for case in ElementTree.parse(report).getroot().iter("testcase")
        if case.find("skipped") is not None
    }
    assert "no run of ti2v-5b 2s-720p on a GeForce RTX 4080 here" in str(skipped["test_performance"])
    names = [f"{module}.ThreadripperPROOptimizationValidationTests.test_{each}" for each in ("settings", "monotone")]
    done = call([sys.executable, "-m", "unittest", *names], of)
    assert (done.returncode, "Ran 2 tests" in done.stderr) == (0, True), done.stderr
