"""The parent's side of the ceilings: a checkpoint to read, the device for itself, a child that measures."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.against_stock.records import Asked, Ceilings
from wan22core.hardware.detect import detect
from wan22core.hardware.manual import load_entries
from wan22core.records import TorchFacts
from wan22core.session.locks import DeviceLock
from wan22core.session.weights import prepare_weights
from wan22core.settings import Settings, read_environment
from wan22core.specs import Weights
from wan22core.worker.client import ModelWorker
from wan22core.worker.host import resolve_device

DEADLINE_S = 600.0
_START_S = 180.0
_ROOT = str(Path(__file__).resolve().parents[2])


def measure_ceilings(asked: Asked) -> Ceilings:
    """What the device and the disk of the checkpoint give; the checkpoint is made where it is not there.

    The GPU is locked meanwhile. Raises ``DeviceBusyError``, and what ``prepare_weights`` and a worker raise.
    """
    settings = Settings()
    log_path = settings.logs_path / "ceilings.log"
    checkpoint = prepare_weights(Weights(model=asked.model), settings, log_path).folder
    paths = os.pathsep.join(filter(None, [_ROOT, read_environment("PYTHONPATH")]))
    lock = DeviceLock(settings.locks_path)
    with ModelWorker(log_path, environment={"PYTHONPATH": paths}) as worker:
        worker.spawn()
        facts = TorchFacts.model_validate(worker.job("wan22core.worker.host:torch_facts_job", {}, _START_S))
        device = resolve_device(asked.device, facts, load_entries(settings.data_dir).preferred_gpu)
        gpu = detect(settings.data_dir, facts).gpu_of(device)
        if gpu is not None and gpu.uuid.value is not None:
            lock.acquire(gpu.uuid.value)
        try:
            arguments = {"device": device, "checkpoint": checkpoint}
            answer = worker.job("benchmarks.against_stock.ceilings:ceilings_job", arguments, DEADLINE_S)
        finally:
            lock.release()
    return Ceilings.model_validate(answer)
