"""Disks that take nothing, a history that is down, commands that are killed: what happened is said, nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.flows.shell import LONG, WAN22, Shell
from tests.worker.test_worker import faulty_spec
from wan22core.specs import Weights


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


@pytest.mark.slow
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
    assert (run["run_id"], run["labels"]["resumed"], run["command"]) == (
        folder.name,
        True,
        "wan22 benchmark --spec spec.json  # spec.json: the key spec of run.json",
    )
    assert [each["stage"] for each in run["stages"] if each["kind"] == "measured" and each["resumed"]] == [
        "decode",
        "write",
    ]
    assert len(json.loads(served.run("history", "list", "--json").stdout)["runs"]) == 1
    again = served.run("benchmark", "--resume", folder.name)
    assert (again.returncode, "is finished" in again.stderr) == (2, True), again.stderr


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
