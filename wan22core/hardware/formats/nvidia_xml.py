"""``nvidia-smi -q -x``: the structured form."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from wan22core.hardware.formats import facts as cells
from wan22core.hardware.formats.facts import Facts, Fields, GpuFacts, reading
from wan22core.records import MigInstance

_ROOT = "<nvidia_smi_log"
_POWER_LIMITS = (
    "gpu_power_readings/current_power_limit",
    "gpu_power_readings/power_limit",
    "power_readings/current_power_limit",
    "power_readings/power_limit",
)


def read(file: str, text: str) -> Facts | None:
    """The GPUs of an XML log; a log that is cut is read as far as its GPUs are whole."""
    start = text.find(_ROOT)
    if start < 0:
        return None
    if "<!ENTITY" in text:  # none of the tool's own logs defines one
        return Facts(notes=[f"{file}: an XML log that defines entities is not read."])
    try:
        root = ElementTree.fromstring(text[start : _end(text)])  # noqa: S314 - entities are refused above
    except ElementTree.ParseError as error:
        return Facts(notes=[f"{file}: the XML can't be read: {error}."])
    facts = Facts(gpu_vendor="nvidia")
    for position, gpu in enumerate(root.findall("gpu")):
        facts.gpus.append(GpuFacts(position, _fields(file, root, gpu)))
        for device in gpu.findall("mig_devices/mig_device"):
            size = reading(device.findtext("fb_memory_usage/total"), file, cells.mib)
            facts.mig_instances.append(MigInstance(gpu=position, memory_mib=size))
    attached = (root.findtext("attached_gpus") or "").strip()
    if attached.isdigit() and int(attached) != len(facts.gpus):
        facts.notes.append(f"{file}: {attached} GPUs are attached, {len(facts.gpus)} are in the log.")
    return facts


def _end(text: str) -> int | None:
    end = text.find("</nvidia_smi_log>")
    return end + len("</nvidia_smi_log>") if end >= 0 else None


def _fields(file: str, root: ElementTree.Element, gpu: ElementTree.Element) -> Fields:
    driver = root.findtext("driver_version") or root.findtext("kmd_version")
    cuda = root.findtext("cuda_version") or root.findtext("cuda_umd_version")
    limits = (gpu.findtext(path) for path in _POWER_LIMITS)
    return {
        "name": reading(gpu.findtext("product_name"), file, cells.name),
        "uuid": reading(gpu.findtext("uuid"), file, cells.name),
        "vram_total_mib": reading(gpu.findtext("fb_memory_usage/total"), file, cells.mib),
        "vram_used_mib": reading(gpu.findtext("fb_memory_usage/used"), file, cells.mib),
        "compute_capability": reading(gpu.findtext("compute_cap"), file, cells.capability),
        "driver": reading(driver, file, cells.version),
        "cuda": reading(cuda, file, cells.version),
        "power_limit_w": reading(next((limit for limit in limits if limit is not None), None), file, cells.watts),
        "temperature_c": reading(gpu.findtext("temperature/gpu_temp"), file, cells.celsius),
        "mig": reading(gpu.findtext("mig_mode/current_mig"), file, cells.enabled),
        "ecc_enabled": reading(gpu.findtext("ecc_mode/current_ecc"), file, cells.enabled),
        "max_sm_mhz": reading(gpu.findtext("max_clocks/sm_clock"), file, cells.mhz),
        "max_memory_mhz": reading(gpu.findtext("max_clocks/mem_clock"), file, cells.mhz),
        "pcie_generation": reading(gpu.findtext("pci/pci_gpu_link_info/pcie_gen/max_link_gen"), file, cells.whole),
        "pcie_width": reading(
            _lanes(gpu.findtext("pci/pci_gpu_link_info/link_widths/max_link_width")), file, cells.whole
        ),
    }


def _lanes(cell: str | None) -> str | None:
    """``16x``."""
    return re.sub(r"x$", "", cell.strip()) if cell is not None else None
