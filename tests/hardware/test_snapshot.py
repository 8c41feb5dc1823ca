"""Other machines by their dumps: small synthetic ones of every form, the corpus where there is one, and garbage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hardware import dumps
from tests.hardware.corpus import CORPUS, facts_of, machines
from wan22core.errors import UserInputError
from wan22core.hardware.formats import read_dump
from wan22core.hardware.snapshot import read_snapshot


def snapshot(folder: Path, **files: str | bytes) -> Path:
    """A folder with these files; ``__`` in a name stands for a dot."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [("q-x.xml", dumps.XML), ("q.txt", dumps.QUERY), ("table.txt", dumps.TABLE), ("old.txt", dumps.OLD_TABLE)],
)
def test_every_form_of_nvidia_smi_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    """The XML, the indented text and the tables, whole figures with their units."""
    (tmp_path / name).write_text(text)
    gpu = read_snapshot(tmp_path).gpus[0]
    assert (gpu.vram_total_mib.value, gpu.driver.value, gpu.cuda.value) == (16376, "555.42.02", "12.5")
    assert (gpu.power_limit_w.value, gpu.temperature_c.value) == (320.0, 41.0)
    assert "RTX 4080" in str(gpu.name.value)
    assert (gpu.ecc_enabled.value, gpu.mig.value) == (None, None)
    assert "N/A" in str(gpu.ecc_enabled.reason)


def test_the_memory_of_a_gpu_is_not_that_of_its_slices(tmp_path: Path) -> None:
    """MIG instances stand before the GPU's own total, in the XML and in the text."""
    (tmp_path / "q.txt").write_text(dumps.MIG_QUERY)
    profile = read_snapshot(tmp_path)
    assert (profile.gpus[0].vram_total_mib.value, profile.gpus[0].mig.value) == (40960, True)
    assert [each.memory_mib.value for each in profile.mig_instances] == [19968, 9856]


def test_columns_of_a_csv_are_found_by_their_names(tmp_path: Path) -> None:
    """Any order, with and without units and an index, ``[N/A]`` with its reason."""
    text = "name, driver_version, memory.total [MiB], power.limit [W], compute_cap\n"
    text += "NVIDIA L4, 550.54.15, 23034 MiB, [N/A], 8.9\n"
    gpu = read_snapshot(snapshot(tmp_path, gpus__csv=text)).gpus[0]
    assert (gpu.index, gpu.name.value, gpu.vram_total_mib.value) == (0, "NVIDIA L4", 23034)
    assert (gpu.compute_capability.value, gpu.power_limit_w.reason) == ("8.9", "it says '[N/A]'")


def test_a_lost_gpu_is_listed_with_its_neighbours(tmp_path: Path) -> None:
    """The message names it, the table does not: the number of the row is not the index."""
    profile = read_snapshot(snapshot(tmp_path, nvidia_smi__txt=dumps.LOST))
    assert [(gpu.index, gpu.state) for gpu in profile.gpus] == [(0, "ok"), (1, "lost"), (2, "ok")]
    assert profile.errors == ["gpu_lost"]
    assert profile.gpus[1].vram_total_mib.reason == "the GPU fell off the bus"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "driver_not_running"),
        ("Failed to initialize NVML: Driver/library version mismatch", "driver_library_mismatch"),
        ("No devices were found", "no_devices"),
        ("bash: nvidia-smi: command not found", "no_nvidia_smi"),
        ("'nvidia-smi' is not recognized as an internal or external command", "no_nvidia_smi"),
    ],
)
def test_an_error_message_is_no_gpu(tmp_path: Path, text: str, code: str) -> None:
    """It has a code; that there is no GPU does not follow from it."""
    profile = read_snapshot(snapshot(tmp_path, nvidia_smi__txt=text))
    assert (profile.errors, profile.gpus, profile.gpu_vendor.value) == ([code], [], None)


def test_cores_come_from_lscpu_only_where_they_make_the_cpus(tmp_path: Path) -> None:
    """A hypervisor's nonsense is no core count; clusters stand in for sockets on some ARM chips."""
    assert read_snapshot(snapshot(tmp_path, lscpu__txt=dumps.lscpu(128, 2, 64, 1))).cpu.physical_cores.value == 64
    cpu = read_snapshot(snapshot(tmp_path, lscpu__txt=dumps.lscpu(112, 112, 1, 1))).cpu
    assert (cpu.physical_cores.value, cpu.sockets.value, cpu.logical_cpus.value) == (None, None, 112)


def test_nodes_have_their_processors_and_gpus_their_nodes(tmp_path: Path) -> None:
    """By numactl, or by lscpu, and by the topology of nvidia-smi; a blank cell is no node."""
    machine = read_snapshot(snapshot(tmp_path, topo__txt=dumps.TOPOLOGY, numactl__txt=dumps.NUMACTL))
    assert machine.cpu.numa_cpus.value == {0: [0, 1, 4, 5], 1: [2, 3, 6, 7], 2: []}
    assert [gpu.numa_node.value for gpu in machine.gpus] == [0, 1, None]
    assert machine.gpus[2].numa_node.reason == "it says 'nothing'"
    (tmp_path / "other").mkdir()
    cpu = read_snapshot(snapshot(tmp_path / "other", lscpu__txt=dumps.lscpu(128, 2, 64, 1))).cpu
    assert cpu.numa_cpus.value == {0: list(range(128))}


def test_lscpu_as_json_with_children(tmp_path: Path) -> None:
    """Newer versions nest the fields."""
    fields = [("CPU(s):", "8"), ("Model name:", "Example"), ("Thread(s) per core:", "2"), ("Core(s) per socket:", "4")]
    entries = [{"field": "Architecture:", "data": "x86_64", "children": [{"field": f, "data": d} for f, d in fields]}]
    text = json.dumps({"lscpu": [*entries, {"field": "Socket(s):", "data": "1"}]})
    cpu = read_snapshot(snapshot(tmp_path, lscpu__json=text)).cpu
    assert (cpu.logical_cpus.value, cpu.physical_cores.value, cpu.sockets.value) == (8, 4, 1)


def test_a_cpuinfo_that_was_cut_counts_nothing(tmp_path: Path) -> None:
    """A listing that begins in the middle settles the model alone."""
    blocks = [f"processor\t: {n}\nmodel name\t: Example\nphysical id\t: 0\ncore id\t: {n}\n" for n in (5, 6)]
    cpu = read_snapshot(snapshot(tmp_path, proc_cpuinfo__txt="\n".join(blocks))).cpu
    assert (cpu.model.value, cpu.logical_cpus.value) == ("Example", None)
    assert cpu.logical_cpus.reason == "the listing begins at processor 5"


def test_what_a_process_may_use(tmp_path: Path) -> None:
    """The quota against the affinity; the limit of memory in bytes."""
    files = {"nproc__txt": "128\n", "cgroup-cpu__max": "1500000 100000\n", "cgroup-memory__max": "536870912\n"}
    profile = read_snapshot(snapshot(tmp_path, **files))
    assert (profile.cpu.usable_cpus.value, profile.memory.limit_mib.value) == (15.0, 512)
    assert profile.cpu.logical_cpus.value is None


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("       total   used   free\nMem:   24682208  1  1\n", 24103),
        ("       total   used   free\nMem:   62Gi  14Gi  1Gi\n", None),
        ("       total   used   free\nMem:   64240  1  1\n", None),
    ],
)
def test_free_is_believed_in_kibibytes_only(tmp_path: Path, text: str, mib: int | None) -> None:
    """Rounded figures and bare MiB are not settled."""
    assert read_snapshot(snapshot(tmp_path, free__txt=text)).memory.total_mib.value == mib


def test_a_card_of_another_vendor_is_named(tmp_path: Path) -> None:
    """AMD's tools and a Mac."""
    card = {
        "Card Series": "Example Radeon",
        "VRAM Total Memory (B)": str(16 * 2**30),
        "Max Graphics Package Power (W)": "300.0",
    }
    text = json.dumps({"card0": card, "system": {"Driver version": "6.3.6"}})
    profile = read_snapshot(snapshot(tmp_path, rocm__json=text))
    assert (profile.gpu_vendor.value, profile.gpus[0].vram_total_mib.value) == ("amd", 16384)
    mac = (
        "    Hardware Overview:\n      Chip: Apple M9\n      Total Number of Cores: 12 (8 and 4)\n      Memory: 96 GB\n"
    )
    (tmp_path / "rocm.json").unlink()
    profile = read_snapshot(snapshot(tmp_path, mac__txt=mac))
    assert (profile.gpu_vendor.value, profile.cpu.physical_cores.value, profile.memory.total_mib.value) == (
        "apple",
        12,
        98304,
    )


def test_sources_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    """The structured one counts; a name that a table cut is no contradiction."""
    table = dumps.TABLE.replace("16376MiB", "32760MiB")
    profile = read_snapshot(snapshot(tmp_path, a__xml=dumps.XML, b__txt=table))
    assert profile.gpus[0].vram_total_mib.value == 16376
    assert profile.notes == ["GPU 0: vram_total_mib is 16376 by a.xml, 32760 by b.txt."]


def test_garbage_costs_itself_alone(tmp_path: Path) -> None:
    """Empty, binary, cut and foreign files get a sentence each, and the rest is read."""
    files: dict[str, str | bytes] = {
        "empty__txt": b"",
        "binary__bin": bytes(range(256)) * 20,
        "cut__xml": dumps.XML[:400],
        "prose__txt": "This is my machine, it is fast.",
        "table__txt": ("﻿" + dumps.TABLE.replace("\n", "\r\n")).encode("utf-16"),
    }
    profile = read_snapshot(snapshot(tmp_path, **files))
    assert profile.gpus[0].vram_total_mib.value == 16376
    assert sorted(note.partition(":")[0] for note in profile.notes) == [
        "binary.bin",
        "cut.xml",
        "empty.txt",
        "prose.txt",
    ]


def test_a_folder_without_dumps_is_refused(tmp_path: Path) -> None:
    """And so is one that is not there."""
    with pytest.raises(UserInputError, match="no dump"):
        read_snapshot(tmp_path)
    with pytest.raises(UserInputError, match="no folder"):
        read_snapshot(tmp_path / "nowhere")


DUMPS = [dumps.XML, dumps.QUERY, dumps.MIG_QUERY, dumps.TABLE, dumps.OLD_TABLE, dumps.LOST, dumps.lscpu(128, 2, 64, 1)]
DUMPS += [dumps.TOPOLOGY, dumps.NUMACTL]


@given(st.sampled_from(DUMPS), st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_dump_invents_nothing(text: str, data: st.DataObject) -> None:
    """No exception; every value stands in the input, or its source names what it was derived from."""
    characters = list(text)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(characters) - 1))
        what = data.draw(st.sampled_from(["delete", "insert", "swap", "cut"]))
        if what == "delete":
            del characters[place : place + data.draw(st.integers(1, 30))]
        elif what == "insert":
            characters[place:place] = data.draw(st.text(max_size=6))
        elif what == "swap":
            other = data.draw(st.integers(0, len(characters) - 1))
            characters[place], characters[other] = characters[other], characters[place]
        else:
            characters = characters[: max(place, 1)]
        if not characters:
            characters = ["x"]
    mutated = "".join(characters)
    for _, facts in read_dump("dump.txt", mutated):
        readings = [*facts.cpu.values(), *facts.memory.values()]
        readings += [reading for gpu in facts.gpus for reading in gpu.fields.values()]
        readings += [instance.memory_mib for instance in facts.mig_instances]
        for reading in readings:
            if reading.value is None or isinstance(reading.value, bool) or ": " in reading.source:
                continue
            token = f"{reading.value:g}" if isinstance(reading.value, float) else str(reading.value)
            assert token in " ".join(mutated.split()), reading


@pytest.mark.skipif(CORPUS is None, reason="WAN22_DUMP_CORPUS names no corpus of real machines' dumps")
def test_the_corpus_is_read_as_its_facts_say() -> None:
    """No field disagrees, and at least 98 % of the facts are returned."""
    facts = [fact for machine in machines(Path(str(CORPUS))) for fact in facts_of(machine)]
    assert [fact for fact in facts if fact.disagrees] == []
    missing = [fact for fact in facts if fact.missing]
    assert len(missing) <= 0.02 * len(facts), missing
