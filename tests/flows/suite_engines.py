"""An engine that the recipe before does not fit, for real worker children."""

from __future__ import annotations

from typing import Any

from tests.worker.engines import FaultyEngine


class ReferenceIsTooLarge(FaultyEngine):
    """Out of memory at each decode of ``reference``, whatever is tried; every other recipe works."""

    def decode(self, latents: Any, *how: Any) -> Any:
        if self.spec.recipe.name == "reference":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 42.90 GiB")
        return super().decode(latents, *how)
