"""Other programs on Linux: ``numactl -H``, ``free``, a shell that does not find a tool, XMRig's summary."""

from __future__ import annotations

import re

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, kib_as_mib, reading
from wan22core.hardware.system_files import cpu_list
from wan22core.records import Reading

_NODES = re.compile(r"^available:\s+(\d{1,4}) nodes", re.MULTILINE)
_NODE_CPUS = re.compile(r"^node (\d{1,4}) cpus:[ \t]*(.*)$", re.MULTILINE)
_FREE = re.compile(r"^\s*total\s+used\s+free\b.*\n\s*Mem:\s+(\S+)", re.MULTILINE)
_SMALLEST_KIB = 512 * 1024
_NOT_FOUND = re.compile(r"(?:\b(nvidia-smi|free|lscpu): (?:command )?not found|'(nvidia-smi)' is not recognized)")


def read_numactl(file: str, text: str) -> Facts | None:
    """Nodes without CPUs count. Their sizes are rounded down each, so the memory is not settled by them."""
    nodes = _NODES.search(text)
    if nodes is None:
        return None
    cpus = {int(node): sorted(cpu_list(listed.replace(" ", ","))) for node, listed in _NODE_CPUS.findall(text)}
    listed = {cpu for each in cpus.values() for cpu in each}
    cpu: Fields = {"numa_nodes": reading(nodes[1], file, cells.whole)}
    if listed:
        source = f"{file}: CPUs of all nodes"
        cpu["logical_cpus"] = Reading[int](value=len(listed), source=source)
        cpu["numa_cpus"] = Reading[dict[int, list[int]]](value=cpus, source=source)
    return Facts(cpu=cpu)


def read_free(file: str, text: str) -> Facts | None:
    """``free`` counts KiB; with ``-h`` it rounds, and a small bare number may as well be MiB of ``free -m``."""
    total = _FREE.search(text)
    if total is None:
        return None
    if not total[1].isdigit():
        return Facts(memory={"total_mib": Reading[int].missing(file, f"{total[1][:20]!r} is rounded")})
    if int(total[1][:20]) < _SMALLEST_KIB:
        return Facts(memory={"total_mib": Reading[int].missing(file, f"the unit of {total[1]} is not said")})
    return Facts(memory={"total_mib": kib_as_mib(total[1], "Mem total", file)})


def read_shell_errors(_file: str, text: str) -> Facts | None:
    """A tool that is not there; that proves nothing about the hardware."""
    missing = dict.fromkeys(linux or windows for linux, windows in _NOT_FOUND.findall(text))
    return Facts(errors=[f"no_{tool.replace('-', '_')}" for tool in missing]) if missing else None


def read_xmrig(file: str, text: str) -> Facts | None:
    """The ``cpu`` object of XMRig's summary (by hwloc), whole or as a fragment."""
    if '"brand"' not in text or '"packages"' not in text:
        return None
    found = {
        name: re.search(rf'"{key}":\s*"?([^",}}\n]+)', text)
        for name, key in (
            ("model", "brand"),
            ("physical_cores", "cores"),
            ("logical_cpus", "threads"),
            ("sockets", "packages"),
            ("numa_nodes", "nodes"),
        )
    }
    return Facts(
        cpu={
            name: reading(match[1] if match else None, file, cells.name if name == "model" else cells.whole)
            for name, match in found.items()
        }
    )
