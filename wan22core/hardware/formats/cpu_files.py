"""Linux's own files about processors and memory, one by one as people copy them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, kib_as_mib, reading
from wan22core.hardware.system_files import cpu_list, fields
from wan22core.records import Reading

_PROCESSOR = re.compile(r"^processor\s*:\s*\d+\s*$", re.MULTILINE)
_MEM_TOTAL = re.compile(r"^MemTotal:\s+(\d+) kB", re.MULTILINE)
_MEM_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_MODEL_NAMES = ("model name", "Model", "cpu model", "Hardware")


def read_cpuinfo(file: str, text: str) -> Facts | None:
    """``/proc/cpuinfo``."""
    starts = [match.start() for match in _PROCESSOR.finditer(text)]
    if not starts:
        return None
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return Facts(cpu=cpuinfo_fields(file, [fields(piece.partition("\n\n")[0]) for piece in pieces]))


def cpuinfo_fields(source: str, blocks: list[dict[str, str]]) -> Fields:
    """One block a logical CPU. A listing that was cut settles the model alone.

    ``cpu cores`` and ``siblings`` speak of the host inside a container, so distinct (package, core) pairs are counted.
    """
    model = next((blocks[0][name] for name in _MODEL_NAMES if blocks and blocks[0].get(name)), None)
    found: Fields = {"model": reading(model, source, cells.name)}
    if (why := _cut(blocks)) is not None:
        return found | {
            name: Reading[int].missing(source, why) for name in ("logical_cpus", "physical_cores", "sockets")
        }
    found["logical_cpus"] = Reading[int](value=len(blocks), source=f"{source}: processors")
    if all({"physical id", "core id"} <= block.keys() for block in blocks):
        cores = {(block["physical id"], block["core id"]) for block in blocks}
        found["physical_cores"] = Reading[int](value=len(cores), source=f"{source}: physical id and core id")
        found["sockets"] = _packages(source, blocks)
    return found


def _cut(blocks: list[dict[str, str]]) -> str | None:
    """Why a listing can't be whole: it does not begin at 0, or its last block has less than its first."""
    if not blocks:
        return "it lists no processor"
    if blocks[0].get("processor") != "0":
        return f"the listing begins at processor {blocks[0].get('processor')}"
    missing = blocks[0].keys() - blocks[-1].keys()
    return f"the listing ends in the middle of processor {blocks[-1].get('processor')}" if len(missing) > 2 else None


def _packages(source: str, blocks: list[dict[str, str]]) -> Reading[int]:
    packages = {block["physical id"] for block in blocks}
    siblings = cells.whole(blocks[0].get("siblings", ""))
    if siblings is not None and siblings * len(packages) > len(blocks):
        return Reading[int].missing(source, f"{len(blocks)} CPUs are shown of packages that have {siblings}")
    return Reading[int](value=len(packages), source=f"{source}: physical id")


def read_meminfo(file: str, text: str) -> Facts | None:
    """``/proc/meminfo``; the lines of a single NUMA node begin otherwise."""
    total, available = _MEM_TOTAL.search(text), _MEM_AVAILABLE.search(text)
    if total is None:
        return None
    memory: Fields = {"total_mib": kib_as_mib(total[1], "MemTotal", file)}
    if available is not None:
        memory["available_mib"] = kib_as_mib(available[1], "MemAvailable", file)
    return Facts(memory=memory)


def read_small(file: str, text: str) -> Facts | None:
    """Files whose content says nothing without their name: CPU lists, cgroup limits, the output of ``nproc``."""
    name = re.sub(r"[^a-z0-9]+", "-", str(PurePosixPath(file)).lower())
    content = text.strip()
    if "nproc-all" in name:
        return _cpu("logical_cpus", file, content, cells.whole)
    if "nproc" in name:
        return _cpu("affinity_cpus", file, content, cells.whole)
    if "cpu-max" in name:
        return _quota(file, content)
    if "memory-max" in name or "memory-limit-in-bytes" in name:
        return _limit(file, content)
    if "node-online" in name:
        return _cpu("numa_nodes", file, content, _count)
    if "cpu-online" in name:
        return _cpu("logical_cpus", file, content, _count)
    return None


def _cpu(field: str, file: str, content: str, convert: object) -> Facts:
    return Facts(cpu={field: reading(content, file, convert)})  # type: ignore[arg-type]


def _count(cell: str) -> int | None:
    return len(cpu_list(cell)) or None


def _quota(file: str, content: str) -> Facts | None:
    """``cpu.max``: quota and period in microseconds, or ``max``."""
    match = re.fullmatch(r"(max|\d{1,15}) (\d{1,15})", content)
    if match is None or int(match[2]) == 0:
        return None
    if match[1] == "max":
        return Facts(cpu={"cgroup_quota_cpus": Reading[float].missing(file, "no quota set")})
    source = f"{file}: {match[1]} us in {match[2]} us"
    return Facts(cpu={"cgroup_quota_cpus": Reading[float](value=int(match[1]) / int(match[2]), source=source)})


def _limit(file: str, content: str) -> Facts | None:
    """``memory.max`` in bytes, or ``max``; version 1 writes a number that no machine has."""
    if content == "max" or (content.isdigit() and int(content[:30]) >= 2**60):
        return Facts(memory={"limit_mib": Reading[int].missing(file, "no limit set")})
    if not content.isdigit():
        return None
    return Facts(memory={"limit_mib": Reading[int](value=int(content) // 2**20, source=f"{file}: {content} bytes")})
