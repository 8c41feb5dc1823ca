"""The boundary to the system under test: what an engine must offer, and how one is found by its name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from wan22core.errors import MissingOutputError, UnknownNameError, UserInputError
from wan22core.records import CachedForwards, Census, Compilation, LoadedComponent, Progress, Tile
from wan22core.specs import BenchmarkSpec, OpaqueFunctions, Precision, Workload

ENTRY_POINTS = "wan22.engines"
"""Group under which another package names a class that is an ``Engine``."""

Report = Callable[[Progress], None]
OnStep = Callable[[int, int], None]


class Engine(Protocol):
    """A model that can be measured stage by stage. Built and called inside the worker child."""

    def load(self, report: Report) -> list[LoadedComponent]:
        """Brings every component to the device."""

    def quantize(self, precision: Precision, report: Report) -> None:
        """Quantizes what was loaded, or raises ``UnsupportedQuantizationError``."""

    def encode(self) -> Any:
        """Text embeddings."""

    def encode_image(self, tile: Tile | None = None) -> Any:
        """What the denoising needs of the start image; coded whole where no ``tile`` is given."""

    def denoise(self, embeddings: Any, condition: Any, on_step: OnStep) -> Any:
        """Latents; ``on_step(index, steps)`` after each step, device synchronised."""

    def decode(self, latents: Any, tile: Tile | None = None) -> Any:
        """uint8 frames (frames, height, width, 3); coded whole where no ``tile`` is given."""

    def make_room(self) -> bool:
        """Takes off the device what coding frames does not need; whether there was anything."""

    def take_brought(self) -> list[LoadedComponent]:
        """Components that were read or brought to the device since this was last asked; those of a load are its own."""

    def take_compiled(self) -> Compilation | None:
        """What was compiled since this was last asked; None where nothing was."""

    def take_cached(self) -> CachedForwards | None:
        """What a step cache left out of the last denoise; None where there is none."""

    def census(self) -> list[Census]:
        """What the components are made of, counted."""

    @property
    def attention_backend(self) -> str:
        """The attention that is active."""


def import_object(dotted: str) -> Any:
    """The object at ``module:name``; ``UserInputError`` says which half is missing."""
    module_name, _, path = dotted.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise UserInputError(
            f"The module {module_name!r} can't be imported: {error}.",
            next_action="Install it, or put its folder on PYTHONPATH.",
        ) from error
    except AttributeError as error:
        raise UserInputError(
            f"{module_name!r} has no {path!r}.", next_action="Give module:name of something that exists."
        ) from error
    return found


class OpaqueModel:
    """A user's own loader and generator: they are called, and what comes out is looked at; nothing inside is seen."""

    def __init__(self, functions: OpaqueFunctions, workload: Workload) -> None:
        self._loader = import_object(functions.loader)
        self._generator = import_object(functions.generator)
        self._workload = workload
        self._model: Any = None

    def load(self) -> None:
        self._model = self._loader()

    def generate(self) -> Any:
        """Calls the generator with those of our arguments that its signature takes."""
        return call_with_known_arguments(self._generator, self._model, self._workload)


def call_with_known_arguments(generator: Callable[..., Any], model: Any, workload: Workload) -> Any:
    """Passes model and workload under the names that ``generator`` has; another first parameter gets the model."""
    known: dict[str, Any] = {
        "model": model,
        "prompt": workload.prompt,
        "negative_prompt": workload.negative_prompt,
        "width": workload.width,
        "height": workload.height,
        "frames": workload.frames,
        "num_frames": workload.frames,
        "fps": workload.fps,
        "steps": workload.steps,
        "num_inference_steps": workload.steps,
        "guidance": workload.guidance,
        "guidance_scale": workload.guidance,
        "duration_s": workload.duration_s,
        "seed": workload.seed,
    }
    parameters = list(inspect.signature(generator).parameters.values())
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return generator(**known)
    chosen = {parameter.name: known[parameter.name] for parameter in parameters if parameter.name in known}
    first_is_model = bool(parameters) and parameters[0].name not in known
    return generator(model, **chosen) if first_is_model else generator(**chosen)


def frames_of(output: Any) -> Any:
    """A generator's output as uint8 frames: an array, a list of pictures, or floats in [0, 1].

    Raises ``MissingOutputError`` for anything else.
    """
    import numpy as np

    from wan22core.model.outputs import to_uint8

    if output is None:
        raise MissingOutputError("The generator returned nothing.", next_action="Return the frames of the video.")
    if isinstance(output, str | Path):
        raise MissingOutputError(
            f"The generator returned the path {output}.", next_action="Return the frames themselves."
        )
    frames = np.asarray(output)
    if frames.dtype == object or frames.size == 0:
        raise MissingOutputError(
            f"The generator returned {type(output).__name__}, not frames.",
            next_action="Return an array (frames, height, width, 3) or a list of pictures.",
        )
    return to_uint8(frames) if np.issubdtype(frames.dtype, np.floating) else frames


def build_engine(spec: BenchmarkSpec, checkpoint: Path | None, device: str) -> Engine:
    """The engine that a spec names."""
    engine: Engine = engine_class(spec.engine)(spec, checkpoint, device)
    return engine


def engine_class(name: str) -> Callable[..., Engine]:
    """The class of ``module:Class``, or of a name that another package registered.

    Raises ``UnknownNameError`` with the names that there are, and ``UserInputError`` for what can't be imported.
    """
    if ":" in name:
        return cast("Callable[..., Engine]", import_object(name))
    points = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        raise UnknownNameError(
            f"There is no engine {name!r}.",
            next_action=f"Installed are: {', '.join(sorted(points)) or 'none'}; or give module:Class.",
        )
    return cast("Callable[..., Engine]", import_object(points[name]))
