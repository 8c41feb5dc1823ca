"""The attention that the transformer dispatches to: as the recipe names it, or the fastest that is right here."""

from __future__ import annotations

import logging
import statistics
import time
from typing import Any

import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry, dispatch_attention_fn

from wan22core.errors import MissingDependencyError, UserInputError
from wan22core.model.device import synchronize
from wan22core.specs import AUTO_ATTENTION

_CANDIDATES = ("native", "_native_cudnn", "_native_flash", "flash", "_flash_3")
"""Exact ones, the plain one first. What quantizes (SageAttention) is taken where a recipe names it."""
_WORTH = 0.95
"""Another than the plain one must take at most this share of its time: near ties would change from run to run."""
_SIMILAR = 0.999
"""Cosine to the plain one's output that a candidate must reach; 16-bit roundings leave 0.99999."""
_TIMED = 5
_log = logging.getLogger(__name__)


def active_attention() -> str:
    """The backend that diffusers dispatches attention to; it is global to the process."""
    return str(_AttentionBackendRegistry.get_active_backend()[0].value)


def set_attention(transformer: Any, backend: str, device: torch.device, tokens: int) -> None:
    """Attention as diffusers names it, or ``auto``: measured on ``device`` for a self-attention of ``tokens``.

    cuDNN's gives way to torch's own choice on devices that it is not for. Raises ``UserInputError`` for a backend that
    diffusers does not know, ``MissingDependencyError`` for one that can't run here.
    """
    if backend == AUTO_ATTENTION:
        backend = _fastest(transformer, device, tokens) if device.type == "cuda" else _CANDIDATES[0]
    elif "cudnn" in backend and not _has_cudnn_attention(device):
        _log.warning("The attention %s is for CUDA devices from Ampere on: %s computes native.", backend, device)
        backend = _CANDIDATES[0]
    _activate(transformer, backend)


def _activate(transformer: Any, backend: str) -> None:
    """Where it is active already nothing is touched."""
    if backend == active_attention():
        return
    try:
        transformer.set_attention_backend(backend)
    except ValueError as error:
        raise UserInputError(
            f"There is no attention backend {backend!r}: {error}",
            next_action="Use auto, native, or another name of diffusers' list.",
        ) from error
    except (RuntimeError, ImportError) as error:
        raise MissingDependencyError(
            f"The attention backend {backend!r} can't be used here: {error}",
            next_action="Install what it needs, or use auto.",
        ) from error


def _has_cudnn_attention(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _fastest(transformer: Any, device: torch.device, tokens: int) -> str:
    """By the median of a few calls with the model's shapes; what can't run here, or differs, is left out."""
    shape = (1, tokens, transformer.config.num_attention_heads, transformer.config.attention_head_dim)
    generator = torch.Generator(device).manual_seed(0)
    made = torch.randn(3, *shape, generator=generator, device=device, dtype=torch.float32).to(transformer.dtype)
    query, key, value = made.unbind(0)
    seconds: dict[str, float] = {}
    expected: torch.Tensor | None = None
    for name in _CANDIDATES:
        try:
            _activate(transformer, name)
            found, seconds_each = _timed(query, key, value, device)
        except torch.OutOfMemoryError:
            raise
        except (UserInputError, MissingDependencyError, RuntimeError, ImportError) as error:
            _log.info("The attention %s can't run here: %s", name, str(error).splitlines()[0])
            continue
        expected = found if expected is None else expected
        cosine = torch.cosine_similarity(found.flatten().float(), expected.flatten().float(), dim=0).item()
        if cosine < _SIMILAR:
            _log.warning("The attention %s is wrong here (cosine %.4f to the plain one): left out.", name, cosine)
            continue
        seconds[name] = seconds_each
    _log.info("Attention of %d tokens, ms: %s", tokens, ", ".join(f"{k} {v * 1e3:.2f}" for k, v in seconds.items()))
    return _choice(seconds)


def _choice(seconds: dict[str, float]) -> str:
    """The fastest, unless it gains next to nothing over the plain one."""
    plain = _CANDIDATES[0]
    best = min(seconds, key=lambda name: seconds[name], default=plain)
    return plain if plain in seconds and seconds[best] > _WORTH * seconds[plain] else best


def _timed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, device: torch.device
) -> tuple[torch.Tensor, float]:
    """The output, and the median seconds of a call once it is warm."""
    with torch.no_grad():
        result = dispatch_attention_fn(query, key, value)
        times = []
        for _ in range(_TIMED):
            synchronize(device)
            began = time.perf_counter()
            dispatch_attention_fn(query, key, value)
            synchronize(device)
            times.append(time.perf_counter() - began)
    return result, statistics.median(times)
