"""A Threadripper PRO workstation: this machine where it is one, else snapshots; loads are put on this machine.

The expected ranges are those of the original description's validation (12.2), for 32 physical cores and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from wan22core.hardware.gpu_specs import GPU_SPECS
from wan22core.planning.configuration import Mechanism
from wan22core.planning.host_settings import HostSettings, host_settings
from wan22core.planning.planner import plan
from wan22core.records import MachineProfile
from wan22core.validation import processor_load
from wan22core.validation.case import Case
from wan22core.validation.context import packaged
from wan22core.validation.expectations import at_least, between, equal, one_of, true
from wan22core.validation.planned import TARGET_WORKLOAD, card_of, offered, settings_of
from wan22core.validation.registry import Check

_NAME = "Threadripper PRO"
_RANGES_FROM_CORES = 32
_SNAPSHOTS = {"synthetic_threadripper-pro-5975wx": 32, "synthetic_threadripper-pro-5995wx": 64}
"""The packaged machines and their physical cores, in the order of their size."""
_TWO_NODES = "synthetic_threadripper-pro-5995wx_nps2"
_CARD = "synthetic_rtx-4080"
_CARD_NODE = 1
"""The node that the card of the two-node snapshot hangs on."""
_WITHOUT_OFFLOAD = (Mechanism.RESIDENT.value, Mechanism.TEXT_ENCODER_FIRST.value)
_GROWING = (
    "threads",
    "interop_threads",
    "workers",
    "preprocessing_threads",
    "io_threads",
    "vae_tile",
    "memory_fraction",
)
"""Settings that may not fall when a machine grows."""
_GRID_CORES = (1, 2, 4, 8, 12, 16, 24, 31, 32, 48, 64, 96, 128)
_GRID_GIB = (0, 2, 3.5, 4, 6, 7, 8, 10, 11, 12, 15, 16, 20, 22, 24, 32, 48, 80, 96, 141)


def _subjects(case: Case) -> Iterator[tuple[MachineProfile, str, int | None]]:
    """This machine where it is one of 32 cores and more, else the snapshots; its cores where they are known before."""
    cpu = case.context.machine.cpu
    if _NAME in (cpu.model.value or "") and (cpu.physical_cores.value or 0) >= _RANGES_FROM_CORES:
        case.look_at(case.context.machine_name)
        yield case.context.machine, str(cpu.model.value), None
        return
    for name, cores in _SNAPSHOTS.items():
        machine, shown = packaged(name)
        case.look_at(shown, complete=True)
        yield machine, name.removeprefix("synthetic_threadripper-pro-"), cores


def _detection(case: Case) -> None:
    for machine, name, cores in _subjects(case):
        cpu = machine.cpu
        case.expect(f"{name}: model names a {_NAME}", true("true"), _NAME in (cpu.model.value or ""))
        if cores is not None:
            case.expect(f"{name}: physical cores", equal(cores), cpu.physical_cores)
        physical = cpu.physical_cores.value or 0
        case.expect(f"{name}: logical CPUs, with or without SMT", one_of((physical, 2 * physical)), cpu.logical_cpus)
        case.expect(f"{name}: sockets", equal(1), cpu.sockets)
        case.expect(f"{name}: NUMA nodes", at_least(1), cpu.numa_nodes)
        case.expect(f"{name}: memory, MiB", at_least(1), machine.memory.total_mib)


def _settings(case: Case) -> None:
    for machine, name, _ in _subjects(case):
        found, cores = settings_of(machine), machine.cpu.physical_cores.value or 0
        case.expect(f"{name}: threads", between(16, min(32, cores // 2)), found.threads)
        case.expect(f"{name}: workers", between(4, min(8, cores // 8)), found.workers)
        case.expect(f"{name}: preprocessing threads", at_least(4), found.preprocessing_threads)


def _numa(case: Case) -> None:
    """Bound to the card's node where there are two, left alone where there is one."""
    case.look_at((two := packaged(_TWO_NODES))[1], complete=True)
    bound = settings_of(two[0])
    case.expect("two nodes: read as such", equal(2), two[0].cpu.numa_nodes)
    case.expect("two nodes: bound to the node of the card", equal(_CARD_NODE), bound.numa_node)
    own = set((two[0].cpu.numa_cpus.value or {}).get(_CARD_NODE, []))
    case.expect("two nodes: the CPUs of that node", true("all of it"), set(bound.numa_cpus or ()) == own != set())
    for name in _SNAPSHOTS:
        machine, shown = packaged(name)
        case.look_at(shown, complete=True)
        case.expect(f"{name}: one node", equal(1), machine.cpu.numa_nodes)
        case.expect(f"{name}: not bound", true("no node"), settings_of(machine).numa_node is None)


def _memory_settings(case: Case) -> None:
    """The workstation's card, and every card of the table that holds the whole model at once."""
    machine, shown = packaged(_CARD)
    case.look_at(shown, complete=True)
    for subject, name, _ in _subjects(case):
        gpu, spec = card_of(subject) or card_of(machine) or (None, None)
        share = host_settings(subject.cpu, spec, gpu.vram_total_mib.value if gpu is not None else None).memory_fraction
        case.expect(f"{name}: memory fraction", between(0.8, 0.95), share)
    case.look_at("plans for the cards of the table")
    held = 0
    for spec in GPU_SPECS:
        found = offered(plan(spec, spec.vram_gib * 1024.0, TARGET_WORKLOAD))
        if any(each.configuration.mechanism is Mechanism.RESIDENT for each in found):
            held += 1
            fastest = found[0].configuration.mechanism.value
            case.expect(f"{spec.name}: placement of the fastest", one_of(_WITHOUT_OFFLOAD), fastest)
    case.expect("cards that hold the whole model", at_least(1), held)


def _memory_of_here(case: Case) -> None:
    """What this process may take is what the system and its control groups leave."""
    case.look_at("this machine")
    memory = case.context.here.memory
    total = memory.total_mib.value or 0
    case.expect("memory, MiB", at_least(1), memory.total_mib)
    case.expect("available, MiB", between(0, total), memory.available_mib)
    limit = memory.limit_mib.value
    if limit is None:
        case.fact("limit of the control groups, MiB", memory.limit_mib)
    else:
        case.expect("limit of the control groups, MiB", between(1, total), limit)
    found = case.job("wan22core.worker.exercise:main_memory_job", {"share": processor_load.TAKEN_SHARE})
    case.expect("taken by a child, MiB", at_least(found["asked_mib"] * 0.99), found["taken_mib"])
    case.expect("and below the limit, MiB", between(0, min(total, limit or total)), found["resident_mib"])


def _planned_scaling(case: Case) -> None:
    """From 32 to 64 cores: more threads and workers, and nothing falls."""
    small, large = (packaged(name) for name in _SNAPSHOTS)
    case.look_at(small[1])
    case.look_at(large[1])
    before, after = settings_of(small[0]), settings_of(large[0])
    for name in _GROWING:
        case.expect(f"{name} from 32 to 64 cores", at_least(getattr(before, name)), getattr(after, name))
    for name in ("threads", "workers"):
        grown = getattr(after, name) / getattr(before, name)
        case.expect(f"{name}, 64 cores by 32", equal(2.0), grown)


def _monotone(case: Case) -> None:
    """Every step of a grid of cores and memory."""
    machine, shown = packaged(_CARD)
    case.look_at(f"a grid of {len(_GRID_CORES)} sizes of processors by {len(_GRID_GIB)} of memory; the card {shown}")
    _, spec = card_of(machine) or (None, None)
    large = packaged("synthetic_threadripper-pro-5995wx")[0].cpu

    def settings(cores: int, gib: float) -> HostSettings:
        reading = large.physical_cores.model_copy(update={"value": cores})
        return host_settings(large.model_copy(update={"physical_cores": reading}), spec, gib * 1024)

    grid = [[settings(cores, gib) for gib in _GRID_GIB] for cores in _GRID_CORES]
    steps = [(grid[i][j], grid[i + 1][j]) for i in range(len(grid) - 1) for j in range(len(_GRID_GIB))]
    steps += [(row[j], row[j + 1]) for row in grid for j in range(len(_GRID_GIB) - 1)]
    for name in _GROWING:
        falls = sum(getattr(low, name) > getattr(high, name) for low, high in steps)
        case.expect(f"{name} falls in {len(steps)} steps", equal(0), falls)
        ends = getattr(grid[0][0], name), getattr(grid[-1][-1], name)
        case.expect(f"{name} grows from the smallest to the largest", true(f"{ends[0]} < {ends[1]}"), ends[0] < ends[1])


_check = partial(Check, category="threadripper_pro")
_detects = partial(
    _check, behaviour="detection and settings", advice="Compare with wan22 hardware and wan22 plan on that machine."
)
_remembers = partial(
    _check, behaviour="memory", advice="Compare with wan22 hardware and with the limits of the container."
)
_scales = partial(
    _check, behaviour="scaling", advice="Look at the affinity, the quota and the threads in the observations."
)

CHECKS = (
    _detects("threadripper_pro.detection", title="It is read as what it is", run=_detection),
    _detects("threadripper_pro.settings", title="Threads and workers are in range", run=_settings),
    _detects("threadripper_pro.numa", title="Bound only where there are several nodes", run=_numa),
    _detects(
        "threadripper_pro.settings_applied",
        title="Settings are in force when applied, and gone afterwards",
        run=processor_load.settings_applied,
    ),
    _check(
        "threadripper_pro.cpu_utilisation",
        behaviour="CPU utilisation",
        title="The planned threads keep their cores busy",
        run=processor_load.utilisation,
        advice="Look at the affinity, the quota and the threads in the observations.",
    ),
    _remembers("threadripper_pro.memory_settings", title="The card is used, without offload", run=_memory_settings),
    _remembers("threadripper_pro.memory_limits", title="This machine's limits are known", run=_memory_of_here),
    _scales("threadripper_pro.scaling_measured", title="All cores do more than one", run=processor_load.scaling),
    _scales("threadripper_pro.scaling_planned", title="Settings grow from 32 to 64 cores", run=_planned_scaling),
    _scales("threadripper_pro.monotone", title="No setting falls when a machine grows", run=_monotone),
)
