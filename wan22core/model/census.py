"""What a module is made of, counted on the tensors themselves."""

from __future__ import annotations

import torch

from wan22core.records import Census


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def counted(name: str, module: torch.nn.Module) -> Census:
    """Parameters, bytes by dtype and devices of one component."""
    by_dtype: dict[str, int] = {}
    tensors = tensors_of(module)
    for tensor in tensors:
        key = str(tensor.dtype).removeprefix("torch.")
        by_dtype[key] = by_dtype.get(key, 0) + tensor.nbytes
    return Census(
        component=name,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        bytes_by_dtype=by_dtype,
        devices=sorted({str(tensor.device) for tensor in tensors}),
    )
