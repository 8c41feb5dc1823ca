"""Everything about measuring Wan2.2 TI2V-5B that can be known without an orchestrator.

The package imports nothing heavy: rooms import torch, pandas and the like where they use them.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "HardwareProfile": "wan22core.api",
    "TI2VBenchmarkTargets": "wan22core.api",
    "WAN22PerformanceBenchmarks": "wan22core.api",
}
"""Names offered here for convenience, and the room that each is loaded from when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
