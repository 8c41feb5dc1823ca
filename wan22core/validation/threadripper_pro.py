"""A Threadripper PRO workstation: the machine where it is one, else snapshots; loads are put on this machine.

The expected ranges are those of the original description's validation (12.2), for 32 physical cores and more.
"""

from __future__ import annotations

from functools import partial

from wan22core.hardware.gpu_specs import GPU_SPECS, find_spec
from wan22core.planning.configuration import Mechanism
from wan22core.planning.host_settings import HostSettings, host_settings
from wan22core.planning.planner import plan
from wan22core.records import MachineProfile, Reading
from wan22core.validation import main_memory, processor_load
from wan22core.validation.case import Case
from wan22core.validation.context import packaged
from wan22core.validation.expectations import at_least, between, equal, one_of, true
from wan22core.validation.planned import TARGET_WORKLOAD, Card, card_of, offered, settings_of, usable_cores
from wan22core.validation.registry import Check
from wan22core.validation.rtx_4080_card import NAME as CARD_NAME
from wan22core.validation.rtx_4080_card import packaged_subject

_NAME = "Threadripper PRO"
_RANGES_FROM_CORES = 32
_SNAPSHOTS = {"synthetic_threadripper-pro-5975wx": 32, "synthetic_threadripper-pro-5995wx": 64}
"""The packaged machines and their physical cores, in the order of their size."""
_TWO_NODES = "synthetic_threadripper-pro-5995wx_nps2"
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
_MOST = {"threads": 32, "workers": 8}
"""They grow with the cores up to here."""
_UNLIMITED = Reading[float].missing("the grid", "all of the cores may be used")
_GRID_CORES = (1, 2, 4, 8, 12, 16, 24, 31, 32, 48, 64, 96, 128)
_GRID_GIB = (0, 2, 3.5, 4, 6, 7, 8, 10, 11, 12, 15, 16, 20, 22, 24, 32, 48, 80, 96, 141)


def _own(case: Case) -> MachineProfile | None:
    """The machine that is validated where it is one of which 32 cores and more may be used.

    None where snapshots stand in for it; they never stand in for dumps.
    """
    context, cpu = case.context, case.context.machine.cpu
    if _NAME in (cpu.model.value or "") and usable_cores(cpu) >= _RANGES_FROM_CORES:
        case.look_at(context.machine_name)
        return context.machine
    if context.replayed is not None:
        case.not_measured(
            f"no {_NAME} of {_RANGES_FROM_CORES} cores and more in {context.replayed_from}",
            "Give the dumps of one, or leave out --from.",
        )
    return None


def _packaged(case: Case, name: str) -> MachineProfile:
    machine, shown = packaged(name)
    case.look_at(shown, packaged=True)
    return machine


def _subjects(case: Case) -> list[tuple[MachineProfile, str, int | None]]:
    """The machine itself, else the snapshots; its name, and its cores where they are known before."""
    own = _own(case)
    if own is not None:
        return [(own, str(own.cpu.model.value), None)]
    return [
        (_packaged(case, name), name.removeprefix("synthetic_threadripper-pro-"), cores)
        for name, cores in _SNAPSHOTS.items()
    ]


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
        found, cores = settings_of(machine, card_of(machine)), usable_cores(machine.cpu)
        case.expect(f"{name}: threads", between(16, min(32, cores // 2)), found.threads)
        case.expect(f"{name}: workers", between(4, min(8, cores // 8)), found.workers)
        case.expect(f"{name}: preprocessing threads", at_least(4), found.preprocessing_threads)


def _numa(case: Case) -> None:
    """Bound to the card's node where there are several and that one is large enough, else left alone."""
    own = _own(case)
    if own is not None:
        _expect_binding(case, own)
        return
    two = _packaged(case, _TWO_NODES)
    bound = settings_of(two, card_of(two))
    case.expect("two nodes: read as such", equal(2), two.cpu.numa_nodes)
    case.expect("two nodes: bound to the node of the card", equal(_CARD_NODE), bound.numa_node)
    cpus = set((two.cpu.numa_cpus.value or {}).get(_CARD_NODE, []))
    case.expect("two nodes: the CPUs of that node", true("all of it"), set(bound.numa_cpus or ()) == cpus != set())
    for name in _SNAPSHOTS:
        machine = _packaged(case, name)
        case.expect(f"{name}: one node", equal(1), machine.cpu.numa_nodes)
        case.expect(f"{name}: not bound", true("no node"), settings_of(machine, card_of(machine)).numa_node is None)


def _expect_binding(case: Case, machine: MachineProfile) -> None:
    """Of a machine whose nodes are not known before: by its own readings."""
    card, nodes = card_of(machine), machine.cpu.numa_nodes
    found = settings_of(machine, card)
    case.expect("NUMA nodes", at_least(1), nodes)
    if (nodes.value or 1) == 1 or card is None:
        case.expect("not bound", true("no node"), found.numa_node is None)
        return
    node = card[0].numa_node
    case.expect("node of the card", at_least(0), node)
    if node.value is None:
        return
    allowed = machine.cpu.affinity.value
    own = [cpu for cpu in (machine.cpu.numa_cpus.value or {}).get(node.value, []) if allowed is None or cpu in allowed]
    cores = len(own) * (machine.cpu.physical_cores.value or 0) // (machine.cpu.logical_cpus.value or 1)
    large_enough = cores >= found.threads
    case.fact("cores of that node that may be used", cores)
    case.expect("bound to it", equal(node.value if large_enough else None), found.numa_node)
    case.expect("bound to its CPUs", equal(tuple(own) if large_enough else None), found.numa_cpus)


def _memory_settings(case: Case) -> None:
    """Every card of the table that holds the whole model at once, and the workstation's card."""
    case.look_at("plans for the cards of the table")
    held = 0
    for spec in GPU_SPECS:
        found = offered(plan(spec, spec.vram_gib * 1024.0, TARGET_WORKLOAD))
        if any(each.configuration.mechanism is Mechanism.RESIDENT for each in found):
            held += 1
            fastest = found[0].configuration.mechanism.value
            case.expect(f"{spec.name}: placement of the fastest", one_of(_WITHOUT_OFFLOAD), fastest)
    case.expect("cards that hold the whole model", at_least(1), held)
    for machine, name, _ in _subjects(case):
        share = settings_of(machine, card_of(machine) or _stand_in(case)).memory_fraction
        case.expect(f"{name}: memory fraction", between(0.8, 0.95), share)


def _stand_in(case: Case) -> Card:
    """A card for a workstation that has none."""
    if case.context.replayed is not None:
        case.not_measured(
            f"no card of the table in {case.context.replayed_from}",
            "Give the dumps of its card too, or leave out --from.",
        )
    _, gpu, spec = packaged_subject(case)
    return gpu, spec


def _planned_scaling(case: Case) -> None:
    """From 32 to 64 cores, or from half of this machine's cores to all: nothing falls, threads and workers double."""
    subjects = _subjects(case)
    large, _, cores = subjects[-1]
    small = _halved(large) if cores is None else subjects[0][0]
    card = card_of(large)
    before, after = settings_of(small, card), settings_of(large, card)
    for name in _GROWING:
        case.expect(f"{name} with twice the cores", at_least(getattr(before, name)), getattr(after, name))
    for name, most in _MOST.items():
        double = 2 * getattr(before, name)
        doubled = between(
            min(most, double), min(most, double + 1)
        )  # one more where half of the cores is no whole number
        case.expect(f"{name}, doubled up to {most}", doubled, getattr(after, name))


def _halved(machine: MachineProfile) -> MachineProfile:
    half = Reading[int](value=usable_cores(machine.cpu) // 2, source="half of the cores")
    return machine.model_copy(update={"cpu": machine.cpu.model_copy(update={"physical_cores": half})})


def _monotone(case: Case) -> None:
    """Every step of a grid of cores and memory."""
    case.look_at(f"a grid of {len(_GRID_CORES)} sizes of processors by {len(_GRID_GIB)} of memory, planned")
    spec, cpu = find_spec(CARD_NAME), case.context.machine.cpu

    def settings(cores: int, gib: float) -> HostSettings:
        sized = {"physical_cores": Reading[int](value=cores, source="the grid"), "usable_cpus": _UNLIMITED}
        return host_settings(cpu.model_copy(update=sized), spec, gib * 1024)

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
    _remembers("threadripper_pro.memory_limits", title="This machine's limits are known", run=main_memory.limits),
    _scales("threadripper_pro.scaling_measured", title="All cores do more than one", run=processor_load.scaling),
    _scales("threadripper_pro.scaling_planned", title="Settings grow with twice the cores", run=_planned_scaling),
    _scales("threadripper_pro.monotone", title="No setting falls when a machine grows", run=_monotone),
)
