"""The child that owns torch: killed at its deadline, its death classified, gone with its parent."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from wan22core.errors import (
    CudaOutOfMemoryError,
    KernelOutOfMemoryError,
    SegmentationFaultError,
    StageFailedError,
    StageTimeoutError,
    UserInputError,
    WorkerKilledError,
)
from wan22core.recipes import recipe
from wan22core.records import Progress
from wan22core.specs import BenchmarkSpec, Workload
from wan22core.worker.client import ModelWorker
from wan22core.worker.death import death_of
from wan22core.worker.processes import kernel_oom_kills, spawn

FAULTY = "tests.worker.engines:FaultyEngine"


def faulty_spec(prompt: str = "none", **changes: Any) -> BenchmarkSpec:
    workload = Workload(name="small", width=64, height=64, frames=5, steps=2, prompt=prompt)
    return BenchmarkSpec(workload=workload, recipe=recipe("reference"), engine=FAULTY, device="cpu").model_copy(
        update=changes
    )


def started(worker: ModelWorker, spec: BenchmarkSpec) -> ModelWorker:
    worker.spawn()
    worker.start({"spec": spec.model_dump(mode="json")})
    return worker


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    """Those still alive after ``seconds``."""
    until = time.monotonic() + seconds
    while (alive := [pid for pid in pids if not gone(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    return alive


def test_stages_run_one_after_the_other_and_are_measured(tmp_path: Path) -> None:
    """Progress arrives, the results carry times, the output's checks and the census."""
    seen: list[Progress] = []
    with started(ModelWorker(tmp_path / "w.log", seen.append), faulty_spec()) as worker:
        loaded = worker.stage("load", 30)
        assert [part.component for part in loaded.components] == ["transformer"]
        assert loaded.census[0].bytes_by_dtype == {"bfloat16": 8}
        assert worker.stage("quantize", 30, precision="bf16").wall_s > 0
        worker.stage("encode", 30)
        denoised = worker.stage("denoise", 60)
        assert (len(denoised.step_times_s), denoised.output_finite) == (2, True)
        worker.stage("save_latents", 30, path=str(tmp_path / "l.safetensors"))
        assert worker.stage("decode", 30).frames_produced == 5
        assert worker.stage("write", 30, path=str(tmp_path / "v.mp4")).frames_produced == 5
    assert ("load", 1.0, 8) in [(each.stage, each.fraction, each.bytes_done) for each in seen]


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_a_hang_in_a_c_call_is_killed_at_the_deadline(tmp_path: Path, stage: str) -> None:
    """A call that keeps the interpreter's lock ends within half a second of its deadline, its process with it."""
    with started(ModelWorker(tmp_path / "w.log"), faulty_spec(f"hang:{stage}")) as worker:
        pid = worker.pid
        assert pid is not None
        for before in ("load", "encode", "denoise"):
            if before == stage:
                break
            worker.stage(before, 60)
        began = time.monotonic()
        with pytest.raises(StageTimeoutError) as caught:
            worker.stage(stage, 2.5)
        assert time.monotonic() - began < 3.0
        assert caught.value.details["hung"] is True
        assert worker.pid is None
        assert gone(pid)


def test_what_the_child_started_ends_with_it(tmp_path: Path) -> None:
    """The whole process group is killed."""
    with (
        started(ModelWorker(tmp_path / "w.log"), faulty_spec("grandchild:load")) as worker,
        pytest.raises(StageTimeoutError),
    ):
        worker.stage("load", 1.0)
    found = re.search(r"grandchild (\d+)", (tmp_path / "w.log").read_text())
    assert found is not None
    assert wait_until_gone([int(found[1])], 1.0) == []


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        ("segfault", SegmentationFaultError, "segmentation fault"),
        ("kill", WorkerKilledError, "the cause was not seen"),
        ("exit", WorkerKilledError, "exit code 3"),
        ("fail", StageFailedError, "RuntimeError: this stage is broken$"),
        ("oom", CudaOutOfMemoryError, "out of memory in load"),
    ],
)
def test_every_end_has_a_name(tmp_path: Path, fault: str, expected: type[Exception], words: str) -> None:
    """Crash, kill, exit, exception and torch's out of memory are told apart."""
    with started(ModelWorker(tmp_path / "w.log"), faulty_spec(f"{fault}:load")) as worker:
        with pytest.raises(expected, match=words):
            worker.stage("load", 30)
        assert (worker.pid is None) is (fault in ("segfault", "kill", "exit"))


def test_a_child_that_raised_goes_on(tmp_path: Path) -> None:
    """An exception costs the stage, not the process."""
    with started(ModelWorker(tmp_path / "w.log"), faulty_spec("fail:encode")) as worker:
        worker.stage("load", 30)
        with pytest.raises(StageFailedError):
            worker.stage("encode", 30)
        assert worker.stage("denoise", 60).output_finite is True
        assert worker.lives == 1


def test_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    """After a death the next life starts from nothing."""
    with started(ModelWorker(tmp_path / "w.log"), faulty_spec("kill:load")) as worker:
        with pytest.raises(WorkerKilledError):
            worker.stage("load", 30)
        with pytest.raises(WorkerKilledError, match="not running"):
            worker.stage("load", 30)
        started(worker, faulty_spec())
        worker.stage("load", 30)
        assert worker.lives == 2


def test_the_childs_log_is_forwarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record logged in the child appears in the parent under the worker's name."""
    with caplog.at_level(logging.INFO), ModelWorker(tmp_path / "w.log") as worker:
        worker.spawn()
        assert worker.job("tests.worker.jobs:log_something", {"text": "hello"}, 30) == {"logged": "hello"}
    assert ("wan22.worker.tests.worker.jobs", logging.WARNING, "hello") in caplog.record_tuples


def test_a_name_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    """A dotted path without an object behind it is the user's error, not a traceback."""
    with ModelWorker(tmp_path / "w.log") as worker:
        worker.spawn()
        with pytest.raises(UserInputError, match="no_such_module"):
            worker.job("no_such_module:function", {}, 30)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """``kill -9`` of the parent leaves no worker a second later, even one in a C call that never returns."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.worker.jobs", str(tmp_path / "w.log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone([pid], 1.0) == []


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle class")
def test_a_process_that_runs_last_is_in_the_idle_class_of_our_session(tmp_path: Path) -> None:
    """Across sessions Linux would give it its share whatever its class."""
    code = (
        "import os; from wan22core.worker.processes import run_last; run_last(); "
        "print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.getsid(0), os.getpgid(0) == os.getpid())"
    )
    with (tmp_path / "log").open("ab") as log:
        spawn([sys.executable, "-c", code], os.environ, log, pipes=False).wait(30)
    assert (tmp_path / "log").read_text().split() == ["True", str(os.getsid(0)), "True"]


def test_the_kernels_kill_needs_evidence(tmp_path: Path) -> None:
    """SIGKILL alone proves nothing; a counter that rose does."""
    log = tmp_path / "w.log"
    assert isinstance(death_of("load", -9, 3, 4, log), KernelOutOfMemoryError)
    assert type(death_of("load", -9, 3, 3, log)) is WorkerKilledError
    assert type(death_of("load", -9, None, None, log)) is WorkerKilledError
    assert "SIGABRT" in death_of("load", -6, None, None, log).message


@pytest.mark.parametrize(
    ("line", "file", "text"),
    [
        ("0::/user/job", "sys/fs/cgroup/user/job/memory.events", "oom 2\noom_kill 2\n"),
        ("7:memory:/docker/x", "sys/fs/cgroup/memory/docker/x/memory.oom_control", "under_oom 0\noom_kill 2\n"),
    ],
)
def test_both_cgroup_versions_are_read(tmp_path: Path, line: str, file: str, text: str) -> None:
    """The counters of the own group and those above it add up."""
    for path, content in (
        ("proc/self/cgroup", f"{line}\n"),
        (file, text),
        (f"{Path(file).parents[1]}/{Path(file).name}", text),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert kernel_oom_kills(tmp_path) == 4
    assert kernel_oom_kills(tmp_path / "nothing") is None


def test_this_module_needs_no_torch_in_the_parent() -> None:
    """The parent's side imports in a fresh interpreter without torch."""
    code = "import sys, wan22core.session.run; print('torch' in sys.modules, 'prefect' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == ["False", "False"]
