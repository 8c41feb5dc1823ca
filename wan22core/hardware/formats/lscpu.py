"""``lscpu``: its text, its JSON, and the parsable table of ``lscpu -p``."""

from __future__ import annotations

import json
import re
from typing import Any

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, reading
from wan22core.hardware.system_files import cpu_list
from wan22core.records import Reading

_X86 = ("GenuineIntel", "AuthenticAMD", "HygonGenuine", "CentaurHauls")
_LINE = re.compile(r"^\s*([A-Z][^:]{1,40}):\s*(.*)$")
_NODE = re.compile(r"NUMA node(\d{1,4}) CPU\(s\)")
_PARSABLE = re.compile(r"^# (CPU,Core,Socket,Node\S*)$")


def read(file: str, text: str) -> Facts | None:
    """The lines ``name: value``, indented or not, and the parsable table where it stands below them."""
    lines: dict[str, str] = {}
    for line in text.splitlines():
        if (match := _LINE.match(line)) is not None:
            lines.setdefault(match[1], match[2].strip())
    if "CPU(s)" not in lines or not {"Thread(s) per core", "Vendor ID", "Model name"} & lines.keys():
        return None
    return Facts(cpu=_cpu(file, lines, _table(text)))


def read_json(file: str, text: str) -> Facts | None:
    """``lscpu -J``: a list of fields, in newer versions with children."""
    if '"lscpu"' not in text:
        return None
    try:
        document = json.loads(text)
        lines = dict(_flat(document["lscpu"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Facts(notes=[f"{file}: the JSON of lscpu can't be read."])
    return Facts(cpu=_cpu(file, lines, []))


def _flat(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for entry in entries:
        found.append((str(entry["field"]).rstrip(":"), str(entry.get("data") or "")))
        found += _flat(entry.get("children") or [])
    return found


def _table(text: str) -> list[list[str]]:
    """The rows of the first parsable table: CPU, core, socket, node."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if _PARSABLE.match(line):
            if rows:
                break
            inside = True
        elif inside and line[:1].isdigit():
            rows.append(line.split(","))
    return [row for row in rows if len(row) >= 4]


def _cpu(file: str, lines: dict[str, str], table: list[list[str]]) -> Fields:
    logical = reading(lines.get("CPU(s)"), file, cells.whole)
    cores, sockets = _cores(file, lines, logical.value), _sockets(file, lines, logical.value)
    if cores.value is None and table:
        cores = Reading[int](value=len({(row[1], row[2]) for row in table}), source=f"{file}: distinct cores")
    return {
        "model": reading(lines.get("Model name"), file, cells.name),
        "logical_cpus": logical,
        "physical_cores": cores,
        "sockets": sockets,
        "numa_nodes": reading(lines.get("NUMA node(s)"), file, cells.whole),
        "numa_cpus": _numa_cpus(file, lines),
    }


def _numa_cpus(file: str, lines: dict[str, str]) -> Reading[dict[int, list[int]]]:
    """A node's line without a list is one of memory alone."""
    found = {int(match[1]): sorted(cpu_list(cpus)) for name, cpus in lines.items() if (match := _NODE.fullmatch(name))}
    if not found:
        return Reading[dict[int, list[int]]].missing(file, "it does not say")
    return Reading[dict[int, list[int]]](value=found, source=f"{file}: NUMA node CPU(s)")


def _numbers(lines: dict[str, str], *names: str) -> list[int]:
    """The numbers of those lines that have one."""
    found = (cells.whole(lines.get(name, "")) for name in names)
    return [number for number in found if number is not None]


def _cores(file: str, lines: dict[str, str], logical: int | None) -> Reading[int]:
    """Cores x sockets (or clusters), when the threads agree with the number of CPUs; hypervisors write nonsense."""
    for per, groups in (("Core(s) per socket", "Socket(s)"), ("Core(s) per cluster", "Cluster(s)")):
        numbers = _numbers(lines, per, groups, "Thread(s) per core")
        if len(numbers) < 3:
            continue
        cores = numbers[0] * numbers[1]
        if _is_sane(lines, cores, numbers[2], logical):
            source = f"{file}: {per} {numbers[0]} x {groups} {numbers[1]}"
            return Reading[int](value=cores, source=source)
        return Reading[int].missing(file, f"{cores} cores of {numbers[2]} threads do not make {logical} CPUs")
    return Reading[int].missing(file, "it does not say")


def _sockets(file: str, lines: dict[str, str], logical: int | None) -> Reading[int]:
    found = reading(lines.get("Socket(s)"), file, cells.whole)
    numbers = _numbers(lines, "Core(s) per socket", "Socket(s)", "Thread(s) per core")
    if found.value is None or len(numbers) < 3:
        return found
    cores, sockets, threads = numbers
    if not _is_sane(lines, cores * sockets, threads, logical):
        return Reading[int].missing(file, f"{sockets} sockets of {cores} cores do not make {logical} CPUs")
    if sockets > 1 and cores <= 2 and lines.get("Vendor ID") not in _X86:
        return Reading[int].missing(file, f"{sockets} sockets of {cores} cores are clusters or virtual CPUs")
    return found


def _is_sane(lines: dict[str, str], cores: int, threads: int, logical: int | None) -> bool:
    """CPUs that are off-line leave fewer of them than cores x threads; more than 8 threads a core exist nowhere."""
    if threads > 8 or cores == 0:
        return False
    offline = any(name.startswith("Off-line CPU(s)") for name in lines)
    return logical is None or offline or cores * threads == logical
