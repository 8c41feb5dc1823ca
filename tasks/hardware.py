"""Detect the hardware."""

from __future__ import annotations

import importlib

from prefect import task

from tasks.options import SESSION_TASK
from wan22core.records import HardwareProfile
from wan22core.session.run import BenchmarkSession


@task(name="detect-hardware", **SESSION_TASK)
def detect_hardware(session: BenchmarkSession) -> HardwareProfile:
    """This machine's profile; the worker starts for torch's part of it."""
    importlib.import_module("wan22core.quality.verdict")  # 3 s that are free while the worker imports torch
    return session.detect_hardware()
