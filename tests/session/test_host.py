"""What a run asks of its host, by the GPUs that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardware.machines import processors
from wan22core.hardware.formats.facts import Facts, GpuFacts
from wan22core.hardware.manual import prefer
from wan22core.hardware.merge import machine_of
from wan22core.hardware.visible import visible_gpus
from wan22core.recipes import recipe
from wan22core.records import GpuProfile, MachineProfile, Reading
from wan22core.session.host import settings_asked
from wan22core.specs import WORKLOADS, BenchmarkSpec

SPEC = BenchmarkSpec(workload=WORKLOADS["smoke"], recipe=recipe("reference"), host_settings="auto")


def machine(*cards: tuple[str, int, int]) -> MachineProfile:
    """64 cores in two nodes with cards of (name, MiB, node)."""
    gpus = [
        GpuFacts(
            index,
            {
                "name": Reading[str](value=name, source="test"),
                "vram_total_mib": Reading[int](value=mib, source="test"),
                "numa_node": Reading[int](value=node, source="test"),
            },
        )
        for index, (name, mib, node) in enumerate(cards)
    ]
    return machine_of([Facts(gpus=gpus)]).model_copy(update={"cpu": processors(64, nodes=2)})


def test_a_stock_host_is_not_even_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default asks for nothing."""
    monkeypatch.delattr("wan22core.session.host.detect")
    stock = SPEC.model_copy(update={"host_settings": "stock"})
    assert (settings_asked(stock, tmp_path), BenchmarkSpec.model_fields["host_settings"].default) == (None, "stock")


@pytest.mark.parametrize(
    ("nodes", "device", "node", "fraction"),
    [((1, 1), "auto", 1, 0.9), ((0, 1), "auto", None, 0.9), ((1, 1), "cpu", None, 0.8)],
)
def test_of_several_cards_the_smallest_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: tuple[int, int], device: str, node: int, fraction: float
) -> None:
    """torch alone knows which is cuda:0: a node counts where all hang on it, and a run on the CPU has no card."""
    found = machine(("NVIDIA GeForce RTX 4090", 24564, nodes[0]), ("NVIDIA GeForce RTX 4080", 16376, nodes[1]))
    monkeypatch.setattr("wan22core.session.host.detect", lambda _: found)
    asked = settings_asked(SPEC.model_copy(update={"device": device}), tmp_path)
    assert asked is not None
    assert (asked.numa_node, asked.memory_fraction, asked.tf32) == (node, fraction, device != "cpu")


def test_a_preferred_card_and_threads_that_were_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """auto takes the preferred card; the spec's threads count, for the binding too."""
    found = machine(("NVIDIA GeForce RTX 4090", 24564, 0), ("NVIDIA GeForce RTX 4080", 16376, 1))
    monkeypatch.setattr("wan22core.session.host.detect", lambda _: found)
    prefer(tmp_path, "NVIDIA GeForce RTX 4090", found.gpus)
    asked = settings_asked(SPEC.model_copy(update={"threads": 8}), tmp_path)
    assert asked is not None
    assert (asked.threads, asked.numa_node, asked.memory_fraction) == (8, 0, 0.92)


CARDS = (("NVIDIA GeForce RTX 4090", 24564, 0), ("NVIDIA GeForce RTX 4080", 16376, 1))
TWINS = (("NVIDIA L4", 23034, 0), ("NVIDIA L4", 23034, 1))
UUIDS = ("GPU-aa00", "GPU-ab11")


def with_uuids(*cards: tuple[str, int, int]) -> list[GpuProfile]:
    pairs = zip(machine(*cards).gpus, UUIDS, strict=True)
    return [gpu.model_copy(update={"uuid": Reading[str](value=uuid, source="test")}) for gpu, uuid in pairs]


@pytest.mark.parametrize(
    ("said", "indices"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("1, 0", [1, 0]),
        ("0,7,1", [0]),
        ("GPU-ab11", [1]),
        ("GPU-ab", [1]),
        ("GPU-a", []),
        ("ab11", []),
        ("GPU-aa,nothing,GPU-ab", [0]),
        ("MIG-GPU-aa00/1/0", [0, 1]),
    ],
)
def test_what_the_variable_leaves(said: str | None, indices: list[int]) -> None:
    """Indices, UUIDs and their beginnings; an entry that means no GPU, or two, hides what follows."""
    for cards, order in ((CARDS, "PCI_BUS_ID"), (TWINS, None), (TWINS, "FASTEST_FIRST")):
        assert [gpu.index for gpu in visible_gpus(with_uuids(*cards), said, order)] == indices


def test_an_index_in_an_order_that_is_not_known_hides_nothing() -> None:
    """CUDA puts the fastest of unlike cards first, and the driver does not; a UUID means one card in any order."""
    gpus = with_uuids(*CARDS)
    assert visible_gpus(gpus, "1") == gpus
    assert visible_gpus(gpus, "GPU-aa") == gpus[:1]
    assert visible_gpus(gpus, "7") == []


@pytest.mark.parametrize(
    ("said", "fraction", "node", "tf32"), [("0", 0.92, 0, True), ("1", 0.9, 1, True), ("", 0.8, None, False)]
)
def test_a_hidden_card_gives_no_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, fraction: float, node: int | None, tf32: bool
) -> None:
    """Not even when it is the preferred one."""
    monkeypatch.setattr("wan22core.session.host.detect", lambda _: machine(*CARDS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if said == "1":
        prefer(tmp_path, "RTX 4090", [])
    asked = settings_asked(SPEC, tmp_path)
    assert asked is not None
    assert (asked.memory_fraction, asked.numa_node, asked.tf32) == (fraction, node, tf32)
