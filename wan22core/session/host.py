"""What a run asks of its host, known before its worker is there: the worker's environment depends on it."""

from __future__ import annotations

from pathlib import Path

from wan22core.hardware.detect import detect
from wan22core.hardware.gpu_specs import spec_of
from wan22core.hardware.manual import load_entries, preferred_among
from wan22core.hardware.visible import ORDER_VARIABLE, VARIABLE, visible_gpus
from wan22core.planning.host_settings import HostSettings, host_settings
from wan22core.settings import read_environment
from wan22core.specs import BenchmarkSpec


def settings_asked(spec: BenchmarkSpec, data_dir: Path) -> HostSettings | None:
    """Those that planning computes for this machine; None where the spec leaves the host as it is.

    Which of several GPUs ``cuda:0`` is, torch alone knows, and it is not imported yet. Unless ``auto`` has a preferred
    one, the settings are those of the GPU with the least memory, bound to a node only if all GPUs hang on it; those
    that ``CUDA_VISIBLE_DEVICES`` hides don't count.
    """
    if spec.host_settings == "stock":
        return None
    machine = detect(data_dir)
    left = visible_gpus(machine.gpus, read_environment(VARIABLE), read_environment(ORDER_VARIABLE))
    gpus = [] if spec.device == "cpu" else [gpu for gpu in left if gpu.state == "ok"]
    if spec.device == "auto":
        preferred = preferred_among(gpus, load_entries(data_dir).preferred_gpu)
        gpus = gpus if preferred is None else [preferred]
    smallest = min(gpus, key=lambda gpu: gpu.vram_total_mib.value or 0, default=None)
    nodes = {gpu.numa_node.value for gpu in gpus}
    return host_settings(
        machine.cpu,
        None if smallest is None else spec_of(smallest),
        None if smallest is None else smallest.vram_total_mib.value,
        gpu_node=nodes.pop() if len(nodes) == 1 else None,
        threads=spec.threads,
    )
