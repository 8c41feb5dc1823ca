"""The start image of an image-to-video workload."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from wan22core.errors import UserInputError
from wan22core.specs import Workload


def start_image(workload: Workload) -> Image.Image:
    """The start image as RGB in the asked shape, its camera's rotation applied.

    Without one a deterministic gradient, which is a valid input like any other.
    Raises ``UserInputError`` when the file is no image that can be decoded.
    """
    if workload.image is None:
        return _gradient(workload.width, workload.height)
    try:
        with Image.open(workload.image) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return upright.resize((workload.width, workload.height), Image.Resampling.LANCZOS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserInputError(
            f"The start image {workload.image} can't be read: {error}.", next_action="Give a PNG or JPEG file."
        ) from error


def _gradient(width: int, height: int) -> Image.Image:
    x = np.linspace(0, 255, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 255, height, dtype=np.float32)[:, None]
    channels = np.broadcast_arrays(x, y, (x + y) / 2)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))
