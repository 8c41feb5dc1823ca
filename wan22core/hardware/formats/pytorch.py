"""What programs of the CUDA world print: ``deviceQuery`` and ``python -m torch.utils.collect_env``."""

from __future__ import annotations

import re

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, GpuFacts, reading

_DEVICE = re.compile(r'^Device (\d{1,3}): "(.+)"\s*$', re.MULTILINE)
_CORES = re.compile(r"CUDA Cores/MP:\s*(\d{1,6}) CUDA Cores")
_CLOCK = re.compile(r"GPU Max Clock rate:\s*(\d{1,5}) MHz")
_MEMORY_CLOCK = re.compile(r"Memory Clock rate:\s*(\d{1,6}) Mhz")
_BUS = re.compile(r"Memory Bus Width:\s*(\d{1,5})-bit")
_CAPABILITY = re.compile(r"CUDA Capability Major/Minor version number:\s*(\S+)")
_ENV_MARK = "PyTorch version:"
_ENV_GPU = re.compile(r"^GPU (\d{1,3}): (.+?)\s*$", re.MULTILINE)
_ENV_ONE = re.compile(r"^GPU models and configuration:[ \t]*(\S.*?)\s*$", re.MULTILINE)
_ENV_DRIVER = re.compile(r"^Nvidia driver version:\s*(\S.*)$", re.MULTILINE)


def read_device_query(file: str, text: str) -> Facts | None:
    """Names and compute capabilities. Its memory is what the driver leaves, and its CUDA may be the toolkit's."""
    starts = list(_DEVICE.finditer(text))
    if not starts or "CUDA Capability" not in text:
        return None
    gpus = []
    for start, end in zip(starts, [*(match.start() for match in starts[1:]), None], strict=True):
        part = text[start.end() : end]
        found = _CAPABILITY.search(part)
        fields: Fields = {
            "name": reading(start[2], file, cells.name),
            "compute_capability": reading(found[1] if found else None, file, cells.capability),
        }
        for name, pattern in (
            ("cuda_cores", _CORES),
            ("max_sm_mhz", _CLOCK),
            ("max_memory_mhz", _MEMORY_CLOCK),
            ("memory_bus_bits", _BUS),
        ):
            match = pattern.search(part)
            fields[name] = reading(match[1] if match else None, file, cells.whole)
        gpus.append(GpuFacts(int(start[1]), fields))
    return Facts(gpus=gpus, gpu_vendor="nvidia")


def read_collect_env(file: str, text: str) -> Facts | None:
    """The GPUs and the driver; its part about the CPU is ``lscpu``'s. The CUDA it names is the toolkit's."""
    if _ENV_MARK not in text:
        return None
    listed = [(int(index), name) for index, name in _ENV_GPU.findall(text)]
    if not listed and (one := _ENV_ONE.search(text)) is not None:
        listed = [(0, one[1])]
    driver = _ENV_DRIVER.search(text)
    gpus = [
        GpuFacts(
            index,
            {
                "name": reading(re.sub(r"\s*\(UUID: .*\)$", "", name), file, cells.name),
                "driver": reading(driver[1].split("\n")[0] if driver else None, file, cells.version),
            },
        )
        for index, name in listed
        if name not in ("Could not collect", "No CUDA", "N/A")
    ]
    return Facts(gpus=gpus, gpu_vendor="nvidia" if gpus and "NVIDIA" in text else None)
