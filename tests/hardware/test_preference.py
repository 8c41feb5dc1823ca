"""The GPU that a person prefers: kept, found again, forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wan22core.errors import UnknownNameError, UserInputError
from wan22core.hardware.formats.facts import Facts, GpuFacts
from wan22core.hardware.manual import filled_up, forget_preference, load_entries, prefer, preferred_among, set_vram
from wan22core.hardware.merge import gpus_of
from wan22core.records import GpuProfile, Reading, TorchDevice, TorchFacts
from wan22core.worker.host import resolve_device

UNLIKE = [
    ("NVIDIA GeForce RTX 4080 SUPER", "GPU-AA000000-0000-0000-0000-000000000001"),
    ("NVIDIA GeForce RTX 4080", "GPU-aa000000-0000-0000-0000-000000000002"),
    ("NVIDIA H100 80GB HBM3", None),
]


def machine(cards: list[tuple[str, str | None]]) -> list[GpuProfile]:
    """GPUs of which a source gives no more than name and UUID."""

    def fields(name: str, uuid: str | None) -> dict[str, Reading[Any]]:
        said = {"name": Reading[Any](value=name, source="test")}
        return said if uuid is None else {**said, "uuid": Reading[Any](value=uuid, source="test")}

    return gpus_of([Facts(gpus=[GpuFacts(index, fields(*card)) for index, card in enumerate(cards)])])[0]


@pytest.mark.parametrize(
    ("asked", "index", "kept"),
    [
        ("1", 1, UNLIKE[1][1]),
        ("NVIDIA GeForce RTX 4080", 1, UNLIKE[1][1]),
        ("rtx 4080", 1, UNLIKE[1][1]),
        ("4080 super", 0, UNLIKE[0][1]),
        ("GPU-aa000000-0000-0000-0000-000000000001", 0, UNLIKE[0][1]),
        ("aa000000-0000-0000-0000-000000000002", 1, UNLIKE[1][1]),
        ("2", 2, UNLIKE[2][0]),
    ],
)
def test_a_preference_is_kept_and_found_again(tmp_path: Path, asked: str, index: int, kept: str) -> None:
    """By index, name (vendor and brand may be left out) or UUID; kept by UUID, by name where no source gives one."""
    assert prefer(tmp_path, asked, machine(UNLIKE)) == kept
    gpus = machine(UNLIKE)
    assert preferred_among(gpus, load_entries(tmp_path).preferred_gpu) is gpus[index]


def test_memories_and_preference_leave_each_other_alone(tmp_path: Path) -> None:
    """They share one file; ``none`` forgets the preference only."""
    set_vram(tmp_path, "NVIDIA Example", 8192)
    prefer(tmp_path, "1", machine(UNLIKE))
    set_vram(tmp_path, "0", 4096)
    assert load_entries(tmp_path).preferred_gpu == UNLIKE[1][1]
    forget_preference(tmp_path)
    assert load_entries(tmp_path).model_dump() == {
        "vram_mib": {"NVIDIA Example": 8192, "0": 4096},
        "preferred_gpu": None,
    }
    assert preferred_among(machine(UNLIKE), None) is None


def test_a_file_from_before_there_were_preferences_loads(tmp_path: Path) -> None:
    (tmp_path / "hardware.json").write_text('{"vram_mib": {"NVIDIA Example": 8192}}')
    assert (load_entries(tmp_path).vram_mib, load_entries(tmp_path).preferred_gpu) == ({"NVIDIA Example": 8192}, None)


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    """The nearest name first; nothing is kept."""
    with pytest.raises(UnknownNameError, match="No GPUs of this machine are called 'RTX 4088'") as refused:
        prefer(tmp_path, "RTX 4088", machine(UNLIKE))
    assert "UUID of one: 1 NVIDIA GeForce RTX 4080, " in refused.value.next_action
    assert not (tmp_path / "hardware.json").exists()


def test_two_gpus_of_one_name_need_an_index(tmp_path: Path) -> None:
    twins = machine([("NVIDIA L4", "GPU-00aa"), ("NVIDIA L4", "GPU-00bb")])
    with pytest.raises(UnknownNameError, match="2 GPUs of this machine are called 'L4'") as refused:
        prefer(tmp_path, "L4", twins)
    assert "0 NVIDIA L4" in refused.value.next_action and "1 NVIDIA L4" in refused.value.next_action
    assert prefer(tmp_path, "1", twins) == "GPU-00bb"


def test_where_no_gpu_is_seen_a_name_is_kept_and_an_index_refused(tmp_path: Path) -> None:
    """A name may be true tomorrow; an index of nothing is nothing."""
    with pytest.raises(UserInputError, match="none with the index 0"):
        prefer(tmp_path, "0", [])
    assert prefer(tmp_path, "NVIDIA L4", []) == load_entries(tmp_path).preferred_gpu == "NVIDIA L4"


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ("RTX 4080", 1),
        ("geforce rtx 4080", 1),
        ("NVIDIA RTX 4080", 1),
        ("4080 super", 0),
        ("h100 80gb hbm3", 2),
        ("GPU-AA000000-0000-0000-0000-000000000002", 1),
        ("aa000000-0000-0000-0000-000000000002", 1),
        ("aa000000", None),
        ("RTX 408", None),
        ("NVIDIA", None),
        ("", None),
    ],
)
def test_what_was_kept_unseen_is_found_when_it_is_seen(tmp_path: Path, said: str, index: int | None) -> None:
    """Entered where no GPU was visible: by the same rules as where one is, a memory too, and torch's devices."""
    assert prefer(tmp_path, said, []) == said
    gpus = machine(UNLIKE)
    assert preferred_among(gpus, said) is (None if index is None else gpus[index])
    known = filled_up(gpus, set_vram(tmp_path, said, 4096))
    assert [gpu.index for gpu in known if gpu.vram_total_mib.value == 4096] == ([] if index is None else [index])
    facts = TorchFacts(version="2.13.0", cuda_version="13.0", devices=devices(), reason=None)
    assert resolve_device("auto", facts, said) == f"cuda:{2 - index if index is not None else 0}"


def devices() -> list[TorchDevice]:
    """The same cards as torch sees them, in another order and without ``GPU-``."""
    return [
        TorchDevice(
            index=number,
            name=name,
            uuid=None if uuid is None else uuid.removeprefix("GPU-").lower(),
            total_mib=16_000,
            compute_capability="8.9",
        )
        for number, (name, uuid) in enumerate(reversed(UNLIKE))
    ]
