"""Settings of the host in real children with the real torch: applied, read back, put back; and a run with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.session.test_session import TINY_SMALL, run
from tests.worker.test_worker import faulty_spec
from wan22core.errors import Wan22Error
from wan22core.planning.host_settings import HostSettings, environment_for
from wan22core.recipes import recipe
from wan22core.specs import BenchmarkSpec
from wan22core.worker.client import ModelWorker
from wan22core.worker.host import torch_facts
from wan22core.worker.host_settings import applied_to_card, without_card

JOBS = "tests.worker.host_jobs"
NO_CPU = 4095
"""No test machine has that many."""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds processes to processors here")


def settings(**changes: Any) -> HostSettings:
    """Each differs from what torch takes by itself."""
    values: dict[str, Any] = {"threads": 3, "interop_threads": 5, "tf32": True, "fp16_accumulation": True}
    values |= {"numa_node": None, "numa_cpus": None, "allocator": "expandable_segments:True"}
    values |= {"working_precision": "bf16", "vae_tile": 512, "memory_fraction": 0.9, "batch": 1}
    values |= {"workers": 1, "preprocessing_threads": 1, "io_threads": 1}
    return HostSettings(**{**values, **changes})


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[ModelWorker]:
    """Not spawned yet."""
    with ModelWorker(tmp_path / "worker.log") as made:
        yield made


def job(worker: ModelWorker, name: str, environment: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """A job in a fresh child that knows the tests and has not imported torch."""
    worker.spawn(environment)
    worker.start({"spec": faulty_spec().model_dump(mode="json")})
    return worker.job(f"{JOBS}:{name}", arguments, 120)


def dumped(asked: HostSettings) -> dict[str, Any]:
    return asked.model_dump(mode="json")


@linux_only
@pytest.mark.parametrize("fail", [False, True])
def test_each_setting_is_read_back_and_put_back(worker: ModelWorker, fail: bool) -> None:
    """Also after an exception; torch's threads between operations alone stay, and the table says so."""
    cpu = min(os.sched_getaffinity(0))
    asked = settings(numa_node=0, numa_cpus=(cpu,))
    found = job(worker, "apply_once", environment_for(asked), settings=dumped(asked), fail=fail)
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: row["read_back"] for name, row in rows.items()} == {
        "numa_node": f"CPUs {cpu}",
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "threads": "3",
        "interop_threads": "5",
        "tf32": "on",
        "fp16_accumulation": "on",
    }
    assert all(row["held"] and row["asked"] == row["read_back"] for row in rows.values())
    assert {name for name, row in rows.items() if row["reason"]} == {"interop_threads"}
    assert found["inside"] == {
        "threads": 3,
        "interop_threads": 5,
        "cpus": [cpu],
        "precisions": ["tf32", "tf32", "tf32"],
        "tf32": [True, True],
        "fp32_products": "high",
        "fp16_accumulation": True,
    }
    assert found.get("stopped", False) is fail
    assert found["after"] == {**found["before"], "interop_threads": 5}


def test_what_holds_already_is_left_alone(worker: ModelWorker) -> None:
    """torch has its threads by the environment; TF32 off is off for convolutions too, where torch has it on."""
    asked = settings(threads=1, tf32=False, fp16_accumulation=False)
    found = job(worker, "apply_once", environment_for(asked), settings=dumped(asked), fail=False)
    assert found["before"]["threads"] == 1
    assert (found["before"]["tf32"], found["inside"]["tf32"]) == ([False, True], [False, False])
    assert found["after"] == {**found["before"], "interop_threads": 5}


def test_two_applications_end_in_order(worker: ModelWorker) -> None:
    """Each finds on its way out what it met on its way in; a second value for what can be set once is refused."""
    outer, inner = settings(), settings(threads=2, interop_threads=6, tf32=False, fp16_accumulation=False)
    found = job(worker, "apply_nested", outer=dumped(outer), inner=dumped(inner))
    first, outside, inside, outside_again, last = found["states"]
    assert (outside["threads"], inside["threads"], inside["tf32"]) == (3, 2, [False, False])
    assert outside_again == outside
    assert last == {**first, "interop_threads": 5}
    refused = next(row for row in found["inner"] if row["name"] == "interop_threads")
    assert (refused["asked"], refused["read_back"], refused["held"]) == ("6", "5", False)
    assert refused["reason"].startswith("refused: ")


@linux_only
@pytest.mark.parametrize("also", [(), (min(os.sched_getaffinity(0)) if sys.platform == "linux" else 0,)])
def test_a_processor_that_is_not_there_is_refused(worker: ModelWorker, also: tuple[int, ...]) -> None:
    """Alone by the kernel; beside one that is there the kernel drops it. The rest is applied, and all put back."""
    asked = settings(numa_node=1, numa_cpus=(*also, NO_CPU))
    found = job(worker, "apply_once", settings=dumped(asked), fail=False)
    row = next(row for row in found["rows"] if row["name"] == "numa_node")
    there = ",".join(str(cpu) for cpu in also or found["before"]["cpus"])
    assert (row["held"], row["read_back"]) == (False, f"CPUs {there}")
    assert row["reason"] == ("another value is in force" if also else "refused: [Errno 22] Invalid argument")
    assert found["inside"]["threads"] == 3
    assert found["after"] == {**found["before"], "interop_threads": 5}


@linux_only
@pytest.mark.usefixtures("every_core")
def test_threads_are_bound_together(worker: ModelWorker) -> None:
    """Older ones and those born meanwhile move and go back; one that has a set of its own keeps it."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("this process may use one processor only")
    found = job(worker, "bind_threads", cpus=usable[:1], own=usable[1])
    assert found["inside"] == [usable[:1], usable[1:2], usable[:1]]
    assert found["after"] == [found["before"], usable[1:2], found["before"]]


def test_a_setting_that_does_not_go_back_is_an_error(worker: ModelWorker) -> None:
    """Nothing pretends that the host is as it was."""
    with pytest.raises(Wan22Error, match=r"The host's threads did not go back: it is 3, and was \d+"):
        job(worker, "break_what_puts_back", settings=dumped(settings()))


@pytest.mark.parametrize(
    ("device", "asked", "said"),
    [
        ("auto", None, "products off, convolutions on"),
        ("auto", {"tf32": True}, "on"),
        ("auto", {"tf32": False}, "off"),
        ("cpu", None, None),
    ],
)
def test_the_start_says_what_torch_has_of_tf32(
    worker: ModelWorker, device: str, asked: dict[str, Any] | None, said: str | None
) -> None:
    """Also where nobody asked for it; nothing where torch was not imported."""
    wanted = {} if asked is None else {"host_settings": dumped(settings(**asked))}
    worker.spawn()
    report, _ = worker.start({"spec": faulty_spec(device=device).model_dump(mode="json"), **wanted})
    assert report.tf32 == said


def test_a_process_without_torch_gets_none(worker: ModelWorker) -> None:
    """A user's own functions may do without it: the rows say why nothing was applied."""
    found = job(worker, "apply_without_torch", settings=dumped(settings()))
    assert found["torch"] is False
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["threads"]["reason"] == "nothing in this process has imported torch"
    assert rows["OMP_NUM_THREADS"]["reason"] == "the process was started without it"
    assert not any(row["held"] or row["read_back"] for row in rows.values())


def test_the_environment_is_there_before_torch(worker: ModelWorker) -> None:
    """torch takes the number of threads and the allocator's configuration from it; a second life has it too."""
    found = job(worker, "found_by_torch", environment_for(settings(threads=1)))
    assert found == {"early": False, "threads": 1, "allocator": "expandable_segments:True"}
    assert job(worker, "found_by_torch") == found


def test_without_a_card_nothing_of_it_holds() -> None:
    """What concerns torch's allocator on a CUDA device is asked for, and not claimed."""
    assert [(row.name, row.held, row.reason) for row in without_card(settings())] == [
        ("allocator", False, "the run uses no CUDA device"),
        ("memory_fraction", False, "the run uses no CUDA device"),
    ]


class Card:
    """torch's allocator on a card that no test machine has to have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, expandable: bool = True) -> None:
        import torch

        self.share = 1.0
        segments = [{"device": 1, "is_expandable": not expandable}, {"device": 0, "is_expandable": expandable}]
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: self.share)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self._set)
        monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
        monkeypatch.setattr(torch._C, "_accelerator_getAllocatorSettings", lambda: "expandable_segments:True")

    def _set(self, share: float, device: str) -> None:
        assert device == "cuda:0"
        self.share = share * (1 - 1e-9)  # whole bytes


def test_the_share_of_a_card_is_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back within the bytes to which torch rounds it; the allocator counts by the memory that it holds."""
    card = Card(monkeypatch)
    with applied_to_card(settings(), "cuda:0", None) as rows:
        assert [(row.name, row.read_back, row.held, row.reason) for row in rows] == [
            ("allocator", "expandable_segments:True", True, None),
            ("memory_fraction", "0.9", True, None),
        ]
        assert card.share == pytest.approx(0.9)
    assert card.share == pytest.approx(1.0)


def test_an_emulated_ceiling_goes_before_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it set is shown and left alone."""
    card = Card(monkeypatch)
    card.share = 0.5
    with applied_to_card(settings(allocator=None), "cuda:0", 8192) as rows:
        assert card.share == 0.5
    assert [(row.read_back, row.held, row.reason) for row in rows] == [
        ("0.5", False, "the ceiling of 8192 MiB sets it")
    ]


@pytest.mark.parametrize(
    ("expandable", "older", "reason"),
    [
        (False, None, "no memory that torch holds is expandable here"),
        (
            True,
            "max_split_size_mb:64",
            "torch did not take PYTORCH_ALLOC_CONF: PYTORCH_CUDA_ALLOC_CONF is set, and goes first",
        ),
    ],
)
def test_an_allocator_that_does_otherwise_is_not_claimed(
    monkeypatch: pytest.MonkeyPatch, expandable: bool, older: str | None, reason: str
) -> None:
    """The words of the configuration are not enough."""
    import torch

    Card(monkeypatch, expandable=expandable)
    if older is not None:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", older)
        monkeypatch.setattr(torch._C, "_accelerator_getAllocatorSettings", lambda: older)
    with applied_to_card(settings(), "cuda:0", None) as rows:
        pass
    assert (rows[0].held, rows[0].reason) == (False, reason)


@pytest.mark.gpu
def test_the_settings_of_this_card(worker: ModelWorker) -> None:
    """Both hold on a real card, whose context the child makes."""
    if not torch_facts().devices:
        pytest.skip("torch sees no CUDA device")
    found = job(worker, "apply_to_card", environment_for(settings()), settings=dumped(settings()))
    assert [(row["name"], row["held"]) for row in found["rows"]] == [("allocator", True), ("memory_fraction", True)]
    assert found["shares"] == [1.0, 0.9, 1.0]


def test_a_run_with_the_settings_of_this_machine(tiny_checkpoint: Path) -> None:
    """The table is in the record and the report; what holds is part of the environment."""
    spec = BenchmarkSpec(workload=TINY_SMALL, recipe=recipe("reference"), repeats=1, warmups=0, device="cpu")
    record = run(spec.model_copy(update={"host_settings": "auto", "threads": 2}), tiny_checkpoint)
    assert record.integrity.failed == []
    rows = {row.name: row for row in record.settings}
    assert rows.keys() >= {"OMP_NUM_THREADS", "threads", "interop_threads", "tf32", "fp16_accumulation"}
    assert rows["threads"].read_back == rows["OMP_NUM_THREADS"].read_back == record.environment["threads"] == "2"
    assert {name for name, row in rows.items() if not row.held} == {"memory_fraction"}
    for name in rows.keys() - {"memory_fraction"}:
        assert record.environment[name] == rows[name].read_back
    assert "memory_fraction" not in record.environment
    report = (Path(record.run_dir) / "report.md").read_text()
    assert "## Host settings: asked, read back" in report
    assert "memory fraction | 0.8 | not read back | no | the run uses no CUDA device" in report
