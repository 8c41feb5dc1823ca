"""Safetensors straight into the final tensors: the module that ``from_pretrained(...).to(device)`` gives, bit for bit.

The stock way reads into CPU memory, casts there and moves the result on. Here the module is built without memory, its
tensors are made on the device in their final dtype, and threads read the files into them through a bounded ring of
buffers. What is kept in fp32 follows ``ModelMixin.from_pretrained`` of diffusers 0.42 and ``_get_dtype_plan`` of
transformers 5. A component that was prepared in int8 or fp8 gets its quantized layers before it gets tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from diffusers.models.modeling_utils import no_init_weights

from wan22core.errors import CorruptWeightsError
from wan22core.model.layout import weight_files
from wan22core.model.quantized_layers import layers_of, put_layers, quantized_tensors
from wan22core.model.safetensors_header import HeaderError, Tensor, read_header
from wan22core.model.staging import DTYPES, OnBytes, chunks_of, read_chunks
from wan22core.specs import Precision

_NOWHERE = torch.device("meta")


@dataclass(frozen=True)
class StoredTensors:
    """What the files of one component hold."""

    folder: Path
    by_file: Mapping[Path, Mapping[str, Tensor]]

    @property
    def all(self) -> dict[str, Tensor]:
        return {name: tensor for tensors in self.by_file.values() for name, tensor in tensors.items()}

    @property
    def header_bytes(self) -> int:
        """What the files hold beside the tensors."""
        held = sum(tensor.nbytes for tensor in self.all.values())
        return sum(file.stat().st_size for file in self.by_file) - held

    @property
    def own_dtype(self) -> torch.dtype:
        """The floating dtype of most elements: what is left in fp32 for its range is never most of them."""
        counted: Counter[torch.dtype] = Counter()
        for tensor in self.all.values():
            dtype = DTYPES[tensor.dtype]
            counted[dtype] += tensor.elements if dtype.is_floating_point else 0
        return counted.most_common(1)[0][0]


def stored_tensors(folder: Path) -> StoredTensors:
    """The headers of a component's files.

    Raises ``CorruptWeightsError`` that names the file which is missing, truncated or no safetensors, which holds a
    tensor that another one holds too, or a dtype that torch does not know.
    """
    by_file: dict[Path, dict[str, Tensor]] = {}
    holder: dict[str, Path] = {}
    for file in weight_files(folder):
        try:
            by_file[file] = read_header(file)
        except HeaderError as error:
            _refuse(file, str(error))
        except OSError as error:
            _refuse(file, f"can't be read: {error.strerror or error}")
        for name, tensor in by_file[file].items():
            if tensor.dtype not in DTYPES:
                _refuse(file, f"holds {name} as {tensor.dtype}, which is not loaded")
            if (other := holder.setdefault(name, file)) != file:
                _refuse(file, f"holds {name}, and so does {other.name}")
    return StoredTensors(folder, by_file)


def load_direct(
    cls: Any,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    on_bytes: OnBytes,
    quantized: Precision | None = None,
) -> Any:
    """A module of ``cls`` (of diffusers or transformers) on ``device``, in eval mode, floating tensors in ``dtype``.

    ``quantized`` says that the files hold its layers in int8 or fp8; those are read as they are stored. ``on_bytes`` is
    told what was read, on the readers' threads; what it raises ends the load. Raises ``CorruptWeightsError`` that names
    the file of a tensor which is missing, unexpected, misshapen, of another dtype or cut off.
    """
    stored = stored_tensors(folder)
    module = without_memory(cls, folder, dtype)
    if quantized is not None:
        put_layers(module, layers_of(module, quantized), _NOWHERE)
    as_stored = quantized_tensors(module)
    _require_fitting(module, stored, as_stored)
    kept = kept_in_fp32(cls, dtype)
    targets = {
        name: torch.empty(
            tensor.shape,
            dtype=as_stored.get(name) or final_dtype(name, DTYPES[tensor.dtype], dtype, kept),
            device=device,
        )
        for name, tensor in stored.all.items()
    }
    chunks = [chunk for file, tensors in stored.by_file.items() for chunk in chunks_of(file, tensors, targets)]
    on_bytes(stored.header_bytes)
    read_chunks(chunks, device, on_bytes)
    absent = set(module.load_state_dict(targets, strict=False, assign=True).missing_keys)
    if not isinstance(module, ModelMixin) and not as_stored:  # a quantized table is one module under both its names
        module.tie_weights(missing_keys=absent)
    return module.to(device).eval()  # what is left to move are buffers that no file holds


def kept_in_fp32(cls: Any, dtype: torch.dtype) -> frozenset[str]:
    """Parts of a tensor's name that leave it in fp32 when its module is loaded in ``dtype``.

    diffusers keeps them in every precision; transformers lists one set that fp16 would overflow, and a strict one.
    """
    if issubclass(cls, ModelMixin):
        return frozenset(cls._keep_in_fp32_modules or ())
    kept = [cls._keep_in_fp32_modules] if dtype is torch.float16 else []
    kept += [cls._keep_in_fp32_modules_strict] if dtype in (torch.float16, torch.bfloat16) else []
    return frozenset(name for names in kept for name in names or ())


def final_dtype(name: str, stored: torch.dtype, dtype: torch.dtype, kept: frozenset[str]) -> torch.dtype:
    """The dtype that a tensor ends in; what is not floating stays as it is stored."""
    if not stored.is_floating_point:
        return stored
    return dtype if kept.isdisjoint(name.split(".")) else torch.float32


def without_memory(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The module of a component's config; its parameters are on ``meta``, buffers that no file holds are computed."""
    with _default_dtype(dtype):
        if issubclass(cls, ModelMixin):
            with no_init_weights(), init_empty_weights(include_buffers=False):
                module = cls.from_config(cls.load_config(folder, local_files_only=True))
            module.register_to_config(_name_or_path=str(folder))
            return module
        config = cls.config_class.from_pretrained(folder, local_files_only=True)
        config.name_or_path, config.dtype = str(folder), dtype
        with torch.device("meta"):
            module = cls(config)
        assert not list(module.buffers()), f"{cls.__name__} has buffers, which are on meta now"
        return module


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _require_fitting(module: Any, stored: StoredTensors, as_stored: Mapping[str, torch.dtype]) -> None:
    """Every tensor of the module once in the files, in its shape, and nothing else; of tied ones one is enough."""
    expected = module.state_dict(keep_vars=True)
    for file, tensors in stored.by_file.items():
        for name, tensor in tensors.items():
            if name not in expected:
                _refuse(file, f"holds {name}, which {type(module).__name__} does not have")
            if (shape := tuple(expected[name].shape)) != tensor.shape:
                _refuse(file, f"holds {name} as {list(tensor.shape)} where its config asks for {list(shape)}")
            if (dtype := as_stored.get(name, DTYPES[tensor.dtype])) is not DTYPES[tensor.dtype]:
                _refuse(file, f"holds {name} as {tensor.dtype} where its config asks for {dtype}")
    names: dict[int, set[str]] = {}
    for name, own in expected.items():
        names.setdefault(id(own), set()).add(name)
    held = stored.all.keys()
    if missing := sorted(min(group) for group in names.values() if group.isdisjoint(held)):
        where = ", ".join(file.name for file in stored.by_file)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        _refuse(stored.folder, f"lacks {missing[0]}{more}: it is in none of {where}")


def _refuse(path: Path, what: str) -> NoReturn:
    checkpoint = path.parent if path.is_dir() else path.parent.parent
    raise CorruptWeightsError(f"{path} {what}.", next_action=f"Run wan22 weights check {checkpoint}")
