"""What a child does to its own host, and what it finds there: each returns plain states for the test to compare."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from wan22core.planning.host_settings import HostSettings
from wan22core.worker.host_settings import applied


class _StopError(Exception):
    """Leaves a block in the middle."""


def state() -> dict[str, Any]:
    """All that ``applied`` may touch, as the libraries say it."""
    import torch

    backends: Any = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "precisions": [
            place.fp32_precision for place in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        ],
        "tf32": [backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32],
        "fp32_products": torch.get_float32_matmul_precision(),
        "fp16_accumulation": backends.cuda.matmul.allow_fp16_accumulation,
    }


def apply_once(settings: dict[str, Any], fail: bool, report: object) -> dict[str, Any]:
    """Before, inside and after, left by an exception with ``fail``."""
    found: dict[str, Any] = {"before": state()}
    try:
        with applied(HostSettings.model_validate(settings)) as rows:
            found |= {"rows": [row.model_dump() for row in rows], "inside": state()}
            if fail:
                raise _StopError
    except _StopError:
        found["stopped"] = True
    return found | {"after": state()}


def apply_nested(outer: dict[str, Any], inner: dict[str, Any], report: object) -> dict[str, Any]:
    """The states on the way in and on the way out."""
    states = [state()]
    with applied(HostSettings.model_validate(outer)):
        states.append(state())
        with applied(HostSettings.model_validate(inner)) as rows:
            states.append(state())
        states.append(state())
    return {"states": [*states, state()], "inner": [row.model_dump() for row in rows]}


def apply_without_torch(settings: dict[str, Any], report: object) -> dict[str, Any]:
    with applied(HostSettings.model_validate(settings)) as rows:
        return {"rows": [row.model_dump() for row in rows], "torch": "torch" in sys.modules}


def break_what_puts_back(settings: dict[str, Any], report: object) -> dict[str, Any]:
    """The library takes the new value, and not the old one again."""
    import torch

    really, calls = torch.set_num_threads, list[int]()

    def set_once(threads: int) -> None:
        if not calls:
            really(threads)
        calls.append(threads)

    torch.set_num_threads = set_once
    with applied(HostSettings.model_validate(settings)):
        return {}


def bind_threads(cpus: list[int], own: int, report: object) -> dict[str, Any]:
    """The sets of three threads, inside and afterwards: an older one, one with its own set, one born inside."""
    from wan22core.worker import host_affinity

    done = threading.Event()
    ready: list[threading.Thread] = []

    def live() -> threading.Thread:
        thread = threading.Thread(target=done.wait, daemon=True)
        thread.start()
        ready.append(thread)
        return thread

    live()
    os.sched_setaffinity(live().native_id or 0, {own})
    before = host_affinity.current()
    host_affinity.bind(cpus)
    live()
    inside = [sorted(os.sched_getaffinity(thread.native_id or 0)) for thread in ready]
    host_affinity.bind(before)
    after = [sorted(os.sched_getaffinity(thread.native_id or 0)) for thread in ready]
    done.set()
    return {"before": sorted(before), "inside": inside, "after": after}


def found_by_torch(report: object) -> dict[str, Any]:
    """What the first import of torch made of the environment."""
    early = "torch" in sys.modules
    import torch

    say: Any = torch._C._accelerator_getAllocatorSettings
    return {"early": early, "threads": torch.get_num_threads(), "allocator": say()}


def apply_to_card(settings: dict[str, Any], report: object) -> dict[str, Any]:
    """The rows on ``cuda:0``, and torch's share of it before, inside and after."""
    import torch

    from wan22core.worker.host_settings import applied_to_card

    torch.zeros(1, device="cuda:0")  # the context, and memory to look at
    shares = [torch.cuda.get_per_process_memory_fraction(0)]
    with applied_to_card(HostSettings.model_validate(settings), "cuda:0", None) as rows:
        shares.append(round(torch.cuda.get_per_process_memory_fraction(0), 4))
    shares.append(round(torch.cuda.get_per_process_memory_fraction(0), 4))
    return {"rows": [row.model_dump() for row in rows], "shares": shares}
