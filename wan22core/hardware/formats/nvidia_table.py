"""What ``nvidia-smi`` prints without options, with ``-L`` and with ``topo -m``, and the tool's own error messages."""

from __future__ import annotations

import re

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, GpuFacts, reading
from wan22core.records import MigInstance, Reading

_HEADER = re.compile(r"(?:Driver|KMD) Version:\s*(\S+)\s+(?:CUDA|CUDA UMD) Version:\s*(\S+)")
_NAME = re.compile(r"^\s*(\d{1,3})\s+(\S.*?)\s+(?:On|Off|N/A|WDDM|TCC|MCDM|ERR!)\s*$")
_STATE = re.compile(r"^\s*\S+\s+(\S+)\s+\S+\s+\S.*/\s*(\S+)\s*$")
_MEMORY = re.compile(r"^\s*(?:\S+)\s*/\s*(\S+)\s*$")
_MIG = re.compile(r"^\|\s*(\d+)\s+\d+\s+\d+\s+\d+\s*\|\s*\d+MiB\s*/\s*(\d+MiB)\s*\|")
_LISTED = re.compile(r"^GPU (\d{1,3}): (.+?) \(UUID: (\S+)\)", re.MULTILINE)
_NEAREST = "NUMA Affinity"
_GPU = re.compile(r"GPU(\d{1,3})")
_LOST = re.compile(r"Unable to determine the device handle for GPU\s*(\d{1,3})?(?::|\s)")

_ERRORS = {
    "communicate with the NVIDIA driver": "driver_not_running",
    "Driver/library version mismatch": "driver_library_mismatch",
    "No devices were found": "no_devices",
    "GPU access blocked by the operating system": "gpu_access_blocked",
    "couldn't find libnvidia-ml": "nvml_missing",
    "Insufficient Permissions": "insufficient_permissions",
    "Failed to initialize NVML": "nvml_not_initialized",
}


def read(file: str, text: str) -> Facts | None:
    """The table's GPUs, and what stands before it: a lost GPU is in the message only, not among the rows."""
    facts = _errors(text)
    header = _HEADER.search(text)
    if header is not None:
        facts.gpu_vendor = "nvidia"
        versions: Fields = {
            "driver": reading(header[1], file, cells.version),
            "cuda": reading(header[2], file, cells.version),
        }
        above, _, _ = text[header.end() :].partition("Processes:")
        table, _, mig = above.partition("MIG devices:")
        facts.gpus += [GpuFacts(gpu.index, {**gpu.fields, **versions}) for gpu in _rows(file, table)]
        facts.mig_instances = _mig_instances(file, mig)
        facts.gpus.sort(key=lambda gpu: gpu.index if gpu.index is not None else 0)
    return facts if header is not None or facts.errors else None


def read_list(file: str, text: str) -> Facts | None:
    """``nvidia-smi -L``."""
    found = [
        GpuFacts(int(index), {"name": reading(name, file, cells.name), "uuid": reading(uuid, file, cells.name)})
        for index, name, uuid in _LISTED.findall(text)
    ]
    return Facts(gpus=found, gpu_vendor="nvidia") if found else None


def read_topology(file: str, text: str) -> Facts | None:
    """``nvidia-smi topo -m``; a row has its cells between tabs, below those of the heading."""
    found: list[GpuFacts] = []
    column: int | None = None
    for row in ([cell.strip() for cell in line.split("\t")] for line in text.splitlines()):
        if _NEAREST in row:
            column = row.index(_NEAREST)
        elif column is not None and column < len(row) and (gpu := _GPU.fullmatch(row[0])) is not None:
            found.append(GpuFacts(int(gpu[1]), {"numa_node": reading(row[column], file, cells.whole)}))
    return Facts(gpus=found, gpu_vendor="nvidia") if found else None


def _errors(text: str) -> Facts:
    flat = " ".join(text[:4000].split())
    code = next((code for words, code in _ERRORS.items() if words in flat), None)
    facts = Facts(errors=[code] if code is not None else [])
    lost = _LOST.search(text)
    if lost is not None:
        facts.errors.append("gpu_lost")
        if lost[1] is not None:
            facts.gpus.append(GpuFacts(int(lost[1]), lost=True))
    return facts


def _rows(file: str, table: str) -> list[GpuFacts]:
    """Each GPU is a row of two or three lines between the borders; the columns are told by their bars."""
    gpus: list[GpuFacts] = []
    row: list[list[str]] = []
    for line in table.splitlines():
        if line.startswith("|") and line.count("|") == 4:
            row.append(line.strip("|").split("|"))
        elif row:
            gpus += _gpu(file, row)
            row = []
    return gpus + (_gpu(file, row) if row else [])


def _gpu(file: str, row: list[list[str]]) -> list[GpuFacts]:
    first = _NAME.match(row[0][0])
    if first is None:  # the heading
        return []
    state = _STATE.match(row[1][0]) if len(row) > 1 else None
    memory = _MEMORY.match(row[1][1]) if len(row) > 1 else None
    fields: Fields = {
        "name": reading(first[2], file, cells.name),
        "temperature_c": reading(state[1] if state else None, file, cells.celsius),
        "power_limit_w": reading(state[2] if state else None, file, cells.watts),
        "vram_total_mib": reading(memory[1] if memory else row[1][1] if len(row) > 1 else None, file, cells.mib),
        "ecc_enabled": _ecc(row[0][2], file),
    }
    if len(row) > 2:
        fields["mig"] = reading(row[2][2], file, cells.enabled)
    return [GpuFacts(int(first[1]), fields)]


def _ecc(cell: str, file: str) -> Reading[bool]:
    """The column counts uncorrected errors: a count means that ECC is on."""
    return reading(cell, file, lambda words: {"Off": False, "On": True}.get(words, True if words.isdigit() else None))


def _mig_instances(file: str, part: str) -> list[MigInstance]:
    rows = (_MIG.match(line) for line in part.splitlines())
    return [MigInstance(gpu=int(row[1][:3]), memory_mib=reading(row[2], file, cells.mib)) for row in rows if row]
