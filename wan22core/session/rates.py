"""Measures what the time model asks of a machine: its disk, and the copies to its GPU."""

from __future__ import annotations

from datetime import UTC, datetime

from wan22core.hardware.detect import detect
from wan22core.hardware.disk_rate import disk_rate
from wan22core.hardware.manual import load_entries
from wan22core.hardware.rates import CopyRates, MachineRates, keep_rates, load_rates
from wan22core.records import TorchFacts
from wan22core.session.locks import DeviceLock
from wan22core.settings import Settings
from wan22core.worker.client import run_job
from wan22core.worker.host import resolve_device

_COPIES_S = 300.0


def measure_rates(settings: Settings, facts: TorchFacts | None) -> MachineRates:
    """The disk of the weights folder, and the GPU that ``auto`` means by what torch sees; kept for ``wan22 plan``.

    Without torch's ``facts`` the disk alone, beside the copies that were measured before. The GPU is locked meanwhile:
    copies would disturb a benchmark. Raises ``DeviceBusyError``, ``UserInputError`` for kept rates that can't be
    understood, and what ``disk_rate`` and a worker raise; nothing is kept then.
    """
    earlier, now = load_rates(settings.data_dir), datetime.now(UTC)
    copies = CopyRates.missing("torch was not asked")
    asked_at: datetime | None = None
    if facts is not None:
        copies, asked_at = _copies(settings, facts), now
    elif earlier is not None:
        copies, asked_at = earlier.copies, earlier.copies_measured_at
    rates = MachineRates(
        disk=disk_rate(settings.weights_path), disk_measured_at=now, copies=copies, copies_measured_at=asked_at
    )
    keep_rates(settings.data_dir, rates)
    return rates


def _copies(settings: Settings, facts: TorchFacts) -> CopyRates:
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
