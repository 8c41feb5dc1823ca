"""Measures what the time model asks of a machine: its disk, and the copies to its GPU."""

from __future__ import annotations

from datetime import UTC, datetime

from wan22core.hardware.detect import detect
from wan22core.hardware.disk_rate import disk_rate
from wan22core.hardware.manual import load_entries
from wan22core.hardware.rates import CopyRates, MachineRates, keep_rates
from wan22core.records import TorchFacts
from wan22core.session.locks import DeviceLock
from wan22core.settings import Settings
from wan22core.worker.client import run_job
from wan22core.worker.host import resolve_device

_COPIES_S = 300.0


def measure_rates(settings: Settings, facts: TorchFacts | None) -> MachineRates:
    """The disk of the weights folder, and the GPU that ``auto`` means by what torch sees; kept for ``wan22 plan``.

    Without torch's ``facts`` the disk alone. The GPU is locked meanwhile: copies would disturb a benchmark. Raises
    ``DeviceBusyError``, and what ``disk_rate`` and a worker raise; nothing is kept then.
    """
    rates = MachineRates(
        measured_at=datetime.now(UTC), copies=_copies(settings, facts), disk=disk_rate(settings.weights_path)
    )
    keep_rates(settings.data_dir, rates)
    return rates


def _copies(settings: Settings, facts: TorchFacts | None) -> CopyRates:
    if facts is None:
        return CopyRates.missing("torch was not asked")
    device = resolve_device("auto", facts, load_entries(settings.data_dir).preferred_gpu)
    if device == "cpu":
        return CopyRates.missing(facts.reason or "torch sees no GPU")
    gpu = detect(settings.data_dir, facts).gpu_of(device)
    lock = DeviceLock(settings.locks_path)
    if gpu is not None and gpu.uuid.value is not None:
        lock.acquire(gpu.uuid.value)
    try:
        answer = run_job(
            "wan22core.worker.copy_rates:copy_rates_job",
            {"device": device},
            deadline_s=_COPIES_S,
            log_path=settings.logs_path / "rates.log",
        )
    finally:
        lock.release()
    return CopyRates.model_validate(answer)
