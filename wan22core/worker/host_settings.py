"""Settings of the host in the process that runs the model: applied, read back from the library, put back at the end.

The table holds what this process can apply. ``workers``, ``preprocessing_threads``, ``io_threads``, ``vae_tile``,
``batch`` and ``working_precision`` are advice: they are the recipe's, or nothing in this version obeys them, so that
none is asked for here or claimed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from wan22core.errors import DeviceError
from wan22core.planning.host_settings import ALLOCATOR_VARIABLE, HostSettings, environment_for
from wan22core.records import AppliedSetting
from wan22core.settings import read_environment
from wan22core.worker import host_affinity

_REFUSALS = (OSError, RuntimeError, ValueError, DeviceError)
_OF_TORCH = ("threads", "interop_threads", "tf32", "fp16_accumulation")
_OLDER_VARIABLE = "PYTORCH_CUDA_ALLOC_CONF"
_DECIMALS = 4  # torch keeps the share as whole bytes of the card


@dataclass(frozen=True)
class _Switch:
    """One setting of this process or of a library in it."""

    name: str
    asked: Any
    read: Callable[[], Any]
    """The value in force."""
    write: Callable[[Any], None]
    keep: Callable[[], Callable[[], None]] | None
    """Takes the present state, and returns what puts it back; None where nothing can."""


@contextmanager
def applied(settings: HostSettings) -> Iterator[list[AppliedSetting]]:
    """Applies what needs no CUDA context, and puts it back in reverse order, also after an exception.

    To be entered before torch starts threads: they inherit the CPUs of the thread that starts them. A value that was in
    force already is left alone. Raises ``DeviceError`` at the end for one that did not go back.
    """
    with ExitStack() as ending:
        rows = [] if settings.numa_cpus is None else [_applied(_affinity(settings.numa_cpus), ending)]
        rows += [_found(name, asked) for name, asked in environment_for(settings).items()]
        if "torch" in sys.modules:
            rows += [_applied(switch, ending) for switch in _torch_switches(settings)]
        else:
            why = "nothing in this process has imported torch"
            rows += [_not_applied(name, getattr(settings, name), why) for name in _OF_TORCH]
        yield rows


@contextmanager
def applied_to_card(settings: HostSettings, device: str, ceiling_mib: int | None) -> Iterator[list[AppliedSetting]]:
    """The same for torch's allocator on ``device``, once it has a CUDA context.

    An emulated ceiling sets the allocator's share by itself, and goes first.
    """
    with ExitStack() as ending:
        rows = [] if settings.allocator is None else [_allocator(settings.allocator, device)]
        share = _memory_fraction(settings.memory_fraction, device)
        if ceiling_mib is None:
            rows.append(_applied(share, ending))
        else:
            why = f"the ceiling of {ceiling_mib} MiB sets it"
            rows.append(_not_applied(share.name, share.asked, why, read_back=share.read()))
        yield rows


def without_card(settings: HostSettings) -> list[AppliedSetting]:
    """The same where the run uses no CUDA device: nothing of it can hold."""
    asked = {"allocator": settings.allocator, "memory_fraction": settings.memory_fraction}
    why = "the run uses no CUDA device"
    return [_not_applied(name, value, why) for name, value in asked.items() if value is not None]


def _applied(switch: _Switch, ending: ExitStack) -> AppliedSetting:
    """Applies one setting, and has ``ending`` put it back; a refusal becomes its reason."""
    reason: str | None = None
    try:
        before = switch.read()
        if before != switch.asked:
            if switch.keep is None:
                reason = "it can be set once in a process: it stays until the process ends"
            else:  # before it is written: a write may fail half way
                ending.callback(_put_back, switch, before, switch.keep())
            switch.write(switch.asked)
    except _REFUSALS as error:
        reason = f"refused: {error}"
    try:
        now = switch.read()
    except _REFUSALS as error:
        return _not_applied(switch.name, switch.asked, f"it can't be read back: {error}")
    if now == switch.asked:
        return AppliedSetting(
            name=switch.name, asked=_shown(switch.asked), read_back=_shown(now), held=True, reason=reason
        )
    return _not_applied(switch.name, switch.asked, reason or "another value is in force", read_back=now)


def _put_back(switch: _Switch, before: Any, restore: Callable[[], None]) -> None:
    restore()
    now = switch.read()
    if now != before:
        raise DeviceError(
            f"The host's {switch.name} did not go back: it is {_shown(now)}, and was {_shown(before)}.",
            next_action="End this process; a new one has it as it was.",
        )


def _not_applied(name: str, asked: Any, reason: str, *, read_back: Any = None) -> AppliedSetting:
    said = None if read_back is None else _shown(read_back)
    return AppliedSetting(name=name, asked=_shown(asked), read_back=said, held=False, reason=reason)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, frozenset):
        return f"CPUs {','.join(str(cpu) for cpu in sorted(value))}"
    return str(value)


def _found(name: str, asked: str) -> AppliedSetting:
    """A variable that the parent has to set: here it can only be read."""
    value = read_environment(name)
    held = value == asked
    reason = None if held else "the process was started without it"
    return AppliedSetting(name=name, asked=asked, read_back=value, held=held, reason=reason)


def _affinity(cpus: tuple[int, ...]) -> _Switch:
    return _simple("numa_node", frozenset(cpus), host_affinity.current, host_affinity.bind)


def _torch_switches(settings: HostSettings) -> list[_Switch]:
    import torch

    matmul = torch.backends.cuda.matmul
    return [
        _simple("threads", settings.threads, torch.get_num_threads, torch.set_num_threads),
        _Switch(
            "interop_threads",
            settings.interop_threads,
            torch.get_num_interop_threads,
            torch.set_num_interop_threads,
            keep=None,
        ),
        _Switch("tf32", settings.tf32, _tf32, _set_tf32, keep=_keep_tf32),
        _simple(
            "fp16_accumulation",
            settings.fp16_accumulation,
            lambda: bool(matmul.allow_fp16_accumulation),
            partial(setattr, matmul, "allow_fp16_accumulation"),
        ),
    ]


def _simple(name: str, asked: Any, read: Callable[[], Any], write: Callable[[Any], None]) -> _Switch:
    """A switch whose value is all there is to put back."""
    return _Switch(name, asked, read, write, keep=lambda: partial(write, read()))


def tf32_in_force() -> str:
    """Whether fp32 products run as TF32: ``on``, ``off``, or both switches where they differ. Changes nothing."""
    return _shown(_tf32())


def fp16_accumulation_in_force() -> AppliedSetting:
    """Whether fp16 products are accumulated in fp16, where the recipe asked for it. Changes nothing."""
    import torch

    on = bool(torch.backends.cuda.matmul.allow_fp16_accumulation)
    why = None if on else "the precision that was run has no products in fp16"
    return AppliedSetting(name="fp16_accumulation", asked="on", read_back=_shown(on), held=on, reason=why)


def _tf32() -> bool | str:
    """Whether matrix products and convolutions in fp32 run as TF32; torch's words where the two differ."""
    import torch

    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if products == convolutions:
        return bool(products)
    return f"products {_shown(products)}, convolutions {_shown(convolutions)}"


def _set_tf32(on: bool) -> None:
    """By the older switches: torch 2.13 takes them without a warning, and they keep what it says of itself in step.

    After ``fp32_precision = "tf32"`` for products alone, ``torch.get_float32_matmul_precision()``, which torch.compile
    asks, raises.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def _keep_tf32() -> Callable[[], None]:
    """The newer switches know one state more than the older ones: ``none``, which follows the general one.

    Both go back, the older ones first: they write what the newer ones say.
    """
    import torch

    backends: Any = torch.backends
    older = [(place, "allow_tf32") for place in (backends.cuda.matmul, backends.cudnn)]
    newer = [(place, "fp32_precision") for place in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]
    kept = [(place, name, getattr(place, name)) for place, name in (*older, *newer)]

    def restore() -> None:
        for place, name, value in kept:
            setattr(place, name, value)

    return restore


def _memory_fraction(share: float, device: str) -> _Switch:
    import torch

    return _simple(
        "memory_fraction",
        share,
        lambda: round(torch.cuda.get_per_process_memory_fraction(device), _DECIMALS),
        lambda value: torch.cuda.set_per_process_memory_fraction(value, device),
    )


def _allocator(asked: str, device: str) -> AppliedSetting:
    """What torch read from the environment, held only if the memory that it has on the card is of that kind."""
    import torch

    say = getattr(torch._C, "_accelerator_getAllocatorSettings", None)
    if say is None:
        return _not_applied("allocator", asked, f"torch {torch.__version__} does not say what its allocator obeys")
    said = str(say())
    if said != asked:
        older = f": {_OLDER_VARIABLE} is set, and goes first" if read_environment(_OLDER_VARIABLE) else ""
        return _not_applied("allocator", asked, f"torch did not take {ALLOCATOR_VARIABLE}{older}", read_back=said)
    cuda: Any = torch.cuda
    index = torch.device(device).index
    segments = [segment for segment in cuda.memory_snapshot() if segment["device"] == index]
    if not any(segment.get("is_expandable") for segment in segments):
        return _not_applied("allocator", asked, "no memory that torch holds is expandable here", read_back=said)
    return AppliedSetting(name="allocator", asked=asked, read_back=said, held=True)
