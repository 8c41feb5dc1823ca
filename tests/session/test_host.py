"""What a run asks of its host, by the GPUs that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hardware.machines import processors
from wan22core.hardware.formats.facts import Facts, GpuFacts
from wan22core.hardware.manual import prefer
from wan22core.hardware.merge import machine_of
from wan22core.recipes import recipe
from wan22core.records import MachineProfile, Reading
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
