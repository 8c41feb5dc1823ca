"""The command line as people and pipelines use it: real processes, a real Prefect server, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from flows.request import BenchmarkRequest
from tests.worker.test_worker import faulty_spec
from wan22core.specs import Weights
from wan22core.targets import TARGETS

WAN22 = Path(sys.executable).with_name("wan22")
_SPEC_COMMAND = "wan22 benchmark --spec spec.json  # spec.json: the key spec of run.json"
LONG = pytest.mark.timeout(240)


_MAIN_THEN_MODULES = """
import sys
from flows.cli.main import cli
from flows.cli.output import run_guarded
code = run_guarded(cli)
print(f"torch: {'torch' in sys.modules}, prefect: {'prefect' in sys.modules}", file=sys.stderr)
sys.exit(code)
"""


class Shell:
    """Runs wan22 with a data folder of its own, by which its processes are found again."""

    def __init__(self, data: Path, server_url: str | None = None) -> None:
        self.data = data
        self.environment = {**os.environ, "WAN22_DATA_DIR": str(data), "NO_COLOR": "1"}
        self.environment.pop("PREFECT_API_URL", None)
        if server_url is not None:
            self.environment["PREFECT_API_URL"] = server_url

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(WAN22), *arguments],
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            timeout=200,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(WAN22), *arguments], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("WAN22_DATA_DIR") == str(self.data)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue  # it ended while we looked, or is not ours to look at
        return found

    def processes_with(self, text: str) -> list[psutil.Process]:
        """Those whose command line has ``text``."""
        found = []
        for process in self.processes():
            try:
                if text in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until a process whose command line has ``text`` runs."""
        until = time.monotonic() + seconds
        while not self.processes_with(text):
            assert time.monotonic() < until, f"no process {text} within {seconds} s"
            time.sleep(0.05)

    def left_after(self, seconds: float) -> list[str]:
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.02)
        return [str(process) for process in left]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


@pytest.fixture
def served(tmp_path: Path, server_url: str) -> Shell:
    """The same, on a server that stands."""
    return Shell(tmp_path / "data", server_url)


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


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["benchmark", "--recipe", "referense"], 2, "Did you mean 'reference'?"),
        (["benchmark", "--workload", "smok"], 2, "The workloads are: smoke"),
        (["benchmark", "--width", "1270"], 2, "the nearest valid value is 1280"),
        (["benchmark", "--host-settings", "fast"], 2, "host_settings: Input should be 'stock' or 'auto'"),
        (["benchmark", "--duration", "2", "--frames", "49"], 2, "Give one of the two"),
        (["benchmark", "--spec", "no-such.json"], 2, "no-such.json can't be read"),
        (["benchmark", "--image", "no-such.png"], 2, "no-such.png is not there"),
        (["plan", "--gpu", "RTX 4088"], 2, "Did you mean RTX 4080"),
        (["plan", "--gpu", "RTX 4080", "--from", "."], 2, "Give one of the two"),
        (["hardware", "--from", "no-such-folder"], 2, "is no folder"),
        (["benchmark", "--nonsense"], 2, "See wan22 benchmark --help"),
        (["gate", "--run", "19990101"], 2, "begin with '19990101'"),
        (["report", "19990101"], 2, "begin with '19990101'"),
        (["weights", "check", "no-such-folder"], 2, "There is no checkpoint"),
        (["weights", "rm", "../else", "--yes"], 2, "wan22 made no checkpoint"),
    ],
)
def test_bad_input_gets_a_sentence(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    """Exit 2, what is wrong and what to do, no traceback."""
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_is_there_is_judged_as_it_is(measured: tuple[Shell, dict[str, Any]], tmp_path: Path) -> None:
    """Other targets beside --run would be ignored, and so would an empty id: both are refused."""
    shell, document = measured
    beside = shell.run("gate", "--run", document["run_id"], "--targets", str(tmp_path / "targets.json"))
    assert (beside.returncode, "targets_file was given beside it" in beside.stderr) == (2, True)
    assert shell.run("gate", "--run", "").returncode == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workload": {"steps": 3}}, "a workload that is called smoke has its values"),
        ({"recipe": {"vae_precision": "bf16"}}, "recipe is called reference and has other values"),
    ],
)
def test_a_spec_does_not_borrow_a_name(shell: Shell, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """A spec that was edited by hand would pass a target that it is not about, and join another series."""
    spec = BenchmarkRequest().to_spec().model_dump(mode="json")
    for part, values in change.items():
        spec[part] |= values
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = shell.run("benchmark", "--spec", str(tmp_path / "spec.json"))
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_two_limits_of_one_name_are_refused(shell: Shell, tmp_path: Path) -> None:
    """One verdict would stand for both."""
    target = TARGETS[0].model_dump(mode="json")
    (tmp_path / "targets.json").write_text(json.dumps([target, {**target, "limit": 1.0}]))
    done = shell.run("benchmark", "--targets", str(tmp_path / "targets.json"))
    assert (done.returncode, "two limits are called model_load_time" in done.stderr) == (2, True), done.stderr


def test_with_json_an_error_is_a_document_too(shell: Shell) -> None:
    """Pipelines read the code, the message and the next step."""
    done = shell.run("benchmark", "--recipe", "nonsense", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], sorted(error)) == (2, "UNKNOWN_NAME", ["code", "log", "message", "next"])


def test_a_runs_folder_that_can_t_be_made_is_refused(shell: Shell, tmp_path: Path) -> None:
    """A file stands where the folder should be: one sentence, before anything is started."""
    (tmp_path / "file").write_text("")
    done = shell.run("benchmark", "--runs-dir", str(tmp_path / "file" / "runs"))
    assert done.returncode == 2
    assert "can't be written" in done.stderr


def _mounts() -> bool:
    """Whether this user may mount a file system for a process of their own."""
    tried = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@LONG
@pytest.mark.skipif(not _mounts(), reason="this user can't mount a tmpfs")
@pytest.mark.parametrize(
    ("options", "code", "words"), [("size=16k", 4, "The disk is full"), ("ro", 2, "Read-only file system")]
)
def test_a_disk_that_takes_nothing(
    served: Shell, tmp_path: Path, tiny_checkpoint: Path, options: str, code: int, words: str
) -> None:
    """A small file system fills up in the middle of a run; another one is read-only: one sentence, the right code."""
    spec = faulty_spec(repeats=1, warmups=0).model_copy(update={"weights": Weights(model=str(tiny_checkpoint))})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    (tmp_path / "disk").mkdir()
    mount = (
        'mount -t tmpfs -o "$1" tmpfs "$2/disk" && exec "$3" benchmark --spec "$2/spec.json" --runs-dir "$2/disk/runs"'
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", options, str(tmp_path), WAN22],
        capture_output=True, text=True, env=served.environment, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr
    assert served.left_after(1.0) == []


def test_a_server_that_is_down_and_a_port_in_use_are_said(shell: Shell) -> None:
    """Both before the run starts, with the way out."""
    down = shell.run("benchmark", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (down.returncode, "does not answer" in down.stderr) == (4, True)
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        used = shell.run("benchmark", WAN22_SERVER_PORT=port)
    assert (used.returncode, f"The port {port}" in used.stderr) == (4, True)


def test_help_loads_nothing_heavy() -> None:
    """The help is there at once: neither torch nor Prefect nor pandas nor Great Expectations is imported for it."""
    code = (
        "import sys\nfrom flows.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'diffusers', 'prefect', 'great_expectations', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "benchmark" in done.stdout
    assert json.loads(done.stderr.replace("'", '"')) == []


@LONG
def test_a_history_that_is_down_costs_nothing_but_the_wait(
    served: Shell, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """The run completes, is kept in the outbox and goes in when the database is there again."""
    spec = faulty_spec(repeats=1, warmups=0).model_copy(update={"weights": Weights(model=str(tiny_checkpoint))})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    (tmp_path / "file").write_text("")
    arguments = ("benchmark", "--spec", str(tmp_path / "spec.json"))
    down = served.run(*arguments, WAN22_DATABASE_URL=f"sqlite:///{tmp_path}/file/history.db")
    assert (down.returncode, "waits in" in down.stderr) == (0, True), down.stderr
    assert len(list((served.data / "outbox").glob("*.json"))) == 1
    assert served.run(*arguments).returncode == 0
    assert list((served.data / "outbox").glob("*.json")) == []
    assert len(json.loads(served.run("history", "list", "--json").stdout)["runs"]) == 2


@LONG
def test_a_run_that_was_cut_off_goes_on(served: Shell, tmp_path: Path, tiny_checkpoint: Path) -> None:
    """``kill -9`` in the first decode: the same command's hint works, and the history has the run once."""
    spec = faulty_spec("hang once:decode", repeats=1, warmups=0)
    workload = spec.workload.model_copy(update={"negative_prompt": str(tmp_path / "mark")})
    spec = spec.model_copy(update={"weights": Weights(model=str(tiny_checkpoint)), "workload": workload})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    process = served.start("benchmark", "--spec", str(tmp_path / "spec.json"))
    until = time.monotonic() + 60
    while not (tmp_path / "mark").exists():
        assert time.monotonic() < until
        threading.Event().wait(0.05)
    process.kill()
    process.wait(30)
    (folder,) = (served.data / "runs").iterdir()
    assert served.run("benchmark", "--resume", "nothing").returncode == 2
    beside = served.run("benchmark", "--resume", folder.name, "--repeats", "2")
    assert (beside.returncode, "repeats was given beside it" in beside.stderr) == (2, True), beside.stderr
    done = served.run("benchmark", "--resume", folder.name, "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["run_id"], run["labels"]["resumed"], run["command"]) == (folder.name, True, _SPEC_COMMAND)
    assert [each["stage"] for each in run["stages"] if each["kind"] == "measured" and each["resumed"]] == [
        "decode",
        "write",
    ]
    assert len(json.loads(served.run("history", "list", "--json").stdout)["runs"]) == 1
    again = served.run("benchmark", "--resume", folder.name)
    assert (again.returncode, "is finished" in again.stderr) == (2, True), again.stderr


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


@pytest.fixture
def hanging_spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A run whose worker hangs in a C call until it is killed."""
    spec = faulty_spec("hang:load").model_copy(update={"weights": Weights(model=str(tiny_checkpoint))})
    path = tmp_path / "spec.json"
    path.write_text(spec.model_dump_json())
    return path


@LONG
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_survives_the_command(shell: Shell, hanging_spec: Path, number: signal.Signals) -> None:
    """``kill -9``, Ctrl-C and a polite kill in the middle of a stage: a second later no process of ours is left."""
    process = shell.start("benchmark", "--spec", str(hanging_spec))
    shell.wait_for("wan22core.worker.server")
    until = time.monotonic() + 60
    while not list((shell.data / "runs").glob("*/worker.log")) and time.monotonic() < until:
        threading.Event().wait(0.05)
    process.send_signal(number)
    code = process.wait(30)
    assert shell.left_after(1.0) == []
    assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: -15}[number]
