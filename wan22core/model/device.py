"""What a device needs around the work that is given to it."""

from __future__ import annotations

import torch


def synchronize(device: torch.device) -> None:
    """Waits until ``device`` has done what was given to it; a CPU has by then."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
