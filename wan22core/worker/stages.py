"""The stages inside the child: each is timed, measured and checked; a result that is none never becomes a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from wan22core import page_cache
from wan22core.errors import MissingDependencyError, ModelNotFoundError, StageFailedError, UserInputError
from wan22core.model.embeddings import embeddings_path, load_embeddings, save_embeddings
from wan22core.model.outputs import check_frames, check_latents, load_latents, save_frames, save_latents
from wan22core.model.video import check_video, write_video
from wan22core.planning.host_settings import HostSettings
from wan22core.planning.tiles import choose_tile, is_large
from wan22core.records import AppliedSetting, Progress, Stage, Tile
from wan22core.settings import Settings
from wan22core.specs import WAN_ENGINE, BenchmarkSpec, Precision, Tiling
from wan22core.worker import host
from wan22core.worker.device_memory import DeviceMemory, NoDeviceMemory, device_memory
from wan22core.worker.engine import Engine, OpaqueModel, Report, build_engine, engine_class, frames_of
from wan22core.worker.host_settings import (
    applied,
    applied_to_card,
    fp16_accumulation_in_force,
    tf32_in_force,
    without_card,
)
from wan22core.worker.messages import StageResult, StartReport
from wan22core.worker.timing import Facts, timed


class StageRunner:
    """Holds the engine and what one stage hands to the next."""

    def __init__(
        self,
        report: Report,
        spec: dict[str, Any],
        preferred_gpu: str | None = None,
        host_settings: dict[str, Any] | None = None,
    ) -> None:
        self._report = report
        self._host_settings = HostSettings.model_validate(host_settings) if host_settings is not None else None
        self._ending = ExitStack()
        self._unsaid: list[AppliedSetting] = []
        self.spec = BenchmarkSpec.model_validate(spec)
        self._preferred_gpu = preferred_gpu
        self._engine: Engine | None = None
        self._opaque = OpaqueModel(self.spec.opaque, self.spec.workload) if self.spec.opaque else None
        self._checkpoint: Path | None = None
        self._embeddings: Any = None
        self._condition: Any = None
        self._latents: Any = None
        self._frames: Any = None
        self._start = self._start_host()
        self._memory: DeviceMemory = NoDeviceMemory()
        self._ceiling_is_settled = self.spec.ceiling_mib is None
        if self.spec.vram_limit_mib is not None and self._start.device == "cpu":
            self._memory.limit(self.spec.vram_limit_mib)  # raises: there is nothing to limit

    def start_report(self) -> StartReport:
        """What was found when this child started."""
        return self._start

    def run(self, name: str, arguments: dict[str, Any]) -> StageResult:
        """One stage: ``load``, ``quantize``, ``encode``..., with what the request says beside its name."""
        stage = Stage(name)
        action: Callable[..., Callable[[], Facts]] = getattr(self, f"_{stage.value}")
        self._report(Progress(stage=name))
        self._meet_device()
        result = timed(self._memory, lambda: action(**arguments))
        settings, self._unsaid = self._unsaid, []
        return result.model_copy(update={"settings": settings})

    def close(self) -> None:
        """Puts the host's settings back."""
        self._ending.close()

    def _meet_device(self) -> None:
        """The context is made at the first stage: by then the parent has locked the device for this run."""
        if isinstance(self._memory, NoDeviceMemory) and self._start.device != "cpu":
            self._memory = device_memory(self._start.device)
            if self.spec.ceiling_mib is not None:
                self._memory.limit(self.spec.ceiling_mib)
            if self._host_settings is not None:
                device, ceiling_mib = self._start.device, self.spec.ceiling_mib
                self._unsaid = self._ending.enter_context(applied_to_card(self._host_settings, device, ceiling_mib))

    def _start_host(self) -> StartReport:
        if self._opaque is None:
            _require_engine(self.spec.engine)
        if self.spec.device == "cpu" and not host.torch_is_loaded():  # else only torch can say which device it is
            device = host.resolve_device(self.spec.device, None)
            return StartReport(device=device, torch=None, threads=None, settings=self._apply_settings(device))
        facts = host.torch_facts()
        device = host.resolve_device(self.spec.device, facts, self._preferred_gpu)
        settings = self._apply_settings(device)
        threads = host.set_threads(self.spec.threads)
        return StartReport(device=device, torch=facts, threads=threads, tf32=tf32_in_force(), settings=settings)

    def _apply_settings(self, device: str) -> list[AppliedSetting]:
        """For as long as this child lives; those of a CUDA device follow with its context."""
        if self._host_settings is None:
            return []
        rows = self._ending.enter_context(applied(self._host_settings))
        return [*rows, *without_card(self._host_settings)] if device == "cpu" else rows

    def _load(self, checkpoint: Path | None = None) -> Callable[[], Facts]:
        if self._opaque is not None:
            self._opaque.load()
            return dict
        files = checkpoint.rglob("*.safetensors") if checkpoint is not None else ()
        cached = page_cache.cached(files)
        engine = build_engine(self.spec, checkpoint, self._start.device)
        components = engine.load(self._report)
        self._engine, self._checkpoint = engine, checkpoint
        return lambda: {
            "components": components,
            "cached_fraction": cached.fraction,
            "census": engine.census(),
            "attention_backend": engine.attention_backend,
        }

    def _quantize(self, precision: str) -> Callable[[], Facts]:
        engine = self._ready()
        engine.quantize(Precision(precision), self._report)
        if self.spec.recipe.fp16_accumulation:
            self._unsaid.append(fp16_accumulation_in_force())

        def verify() -> Facts:
            census = engine.census()
            prepared = any(part.component == "transformer" and part.prepared for part in census)
            return {"census": census, "prepared": prepared}

        return verify

    def _encode(self) -> Callable[[], Facts]:
        """The prompt's embeddings, computed; read where the spec allows it and an earlier run left them."""
        engine, kept = self._ready(), self._kept_embeddings()
        if kept is not None and kept.is_file():
            self._embeddings = load_embeddings(kept, self._start.device)
            return lambda: {"from_cache": True}
        self._embeddings = engine.encode()

        def verify() -> Facts:
            if kept is not None:
                save_embeddings(kept, self._embeddings)
            return {"components": engine.take_brought(), "census": engine.census()}

        return verify

    def _kept_embeddings(self) -> Path | None:
        if not self.spec.cache_embeddings or self._checkpoint is None:
            return None
        return embeddings_path(Settings().embeddings_path, self._checkpoint, self.spec)

    def _encode_image(self) -> Callable[[], Facts]:
        engine = self._ready()
        tile = self._tile(engine, image=True)
        self._condition = engine.encode_image(tile)
        return lambda: {"tile": tile, "components": engine.take_brought()}

    def _tile(self, engine: Engine, *, image: bool = False, halvings: int = 0) -> Tile | None:
        """What the recipe's frames are coded in, by the room that there is.

        Where that is little the engine puts the transformer away, which has to come back for the next video.
        """
        recipe, workload = self.spec.recipe, self.spec.workload
        shape = choose_tile(recipe, workload, self._memory.room_mib(), image=image, halvings=halvings)
        if recipe.vae_tiling is Tiling.AUTO and (halvings or not is_large(shape)) and engine.make_room():
            shape = choose_tile(recipe, workload, self._memory.room_mib(), image=image, halvings=halvings)
        return None if shape is None else Tile(**dict(zip(Tile.model_fields, shape, strict=True)))

    def _denoise(self) -> Callable[[], Facts]:
        self._latents = self._frames = None
        times: list[float] = []
        last = time.perf_counter()

        def on_step(index: int, steps: int) -> None:
            nonlocal last
            self._settle_ceiling()
            now = time.perf_counter()
            times.append(now - last)
            last = now
            self._report(Progress(stage="denoise", fraction=(index + 1) / steps, step=index + 1, steps=steps))

        engine = self._ready()
        self._latents = engine.denoise(self._embeddings, self._condition, on_step)

        def verify() -> Facts:
            compiled, cached = engine.take_compiled(), engine.take_cached()
            return self._checked_latents() | {
                "step_times_s": times,
                "components": engine.take_brought(),
                "attention_backend": engine.attention_backend,
                "compile_s": compiled.seconds if compiled is not None else None,
                "compile_cache": compiled.cache if compiled is not None else None,
                "forwards": cached.forwards if cached is not None else None,
                "cached_forwards": cached.cached if cached is not None else None,
            }

        return verify

    def _settle_ceiling(self) -> None:
        """Sets the ceiling once more after the first step: only then all libraries have what they take."""
        if not self._ceiling_is_settled and self._start.device != "cpu" and self.spec.ceiling_mib is not None:
            self._ceiling_is_settled = True
            self._memory.limit(self.spec.ceiling_mib)

    def _checked_latents(self) -> Facts:
        check_latents(self._latents, self.spec.workload)
        return {"output_finite": True, "output_constant": False}

    def _save_latents(self, path: Path) -> Callable[[], Facts]:
        save_latents(path, self._latents, {"workload": self.spec.workload.model_dump_json()})
        return dict

    def _decode(self, latents: Path | None = None, halvings: int = 0) -> Callable[[], Facts]:
        """``halvings`` is how often a decode of these latents ran out of memory before."""
        if latents is not None:
            self._latents = load_latents(latents)
            check_latents(self._latents, self.spec.workload)
        engine = self._ready()
        tile = self._tile(engine, halvings=halvings)
        self._frames = engine.decode(self._latents, tile)
        return lambda: self._checked_frames() | {"tile": tile, "components": engine.take_brought()}

    def _generate(self) -> Callable[[], Facts]:
        if self._opaque is None:
            raise StageFailedError("This engine has stages of its own.", next_action="Call its stages one by one.")
        output = self._opaque.generate()

        def verify() -> Facts:
            self._frames = frames_of(output)
            return self._checked_frames()

        return verify

    def _checked_frames(self) -> Facts:
        check_frames(self._frames, self.spec.workload)
        return {"frames_produced": len(self._frames), "output_finite": True, "output_constant": False}

    def _write(self, path: Path, frames: Path | None = None) -> Callable[[], Facts]:
        write_video(path, self._frames, self.spec.workload.fps)

        def verify() -> Facts:
            if frames is not None:
                save_frames(frames, self._frames)
            return {"frames_produced": check_video(path, self.spec.workload)}

        return verify

    def _ready(self) -> Engine:
        if self._engine is None:
            raise ModelNotFoundError("The model is not loaded.", next_action="Call load before any other stage.")
        return self._engine


def _require_engine(dotted: str) -> None:
    """Imports the engine; our own can only be missing where what it needs is not installed as it should be."""
    try:
        engine_class(dotted)
    except UserInputError as error:
        if dotted != WAN_ENGINE:
            raise
        raise MissingDependencyError(
            f"torch or diffusers can't be imported: {error.message}", next_action="Set the environment up again."
        ) from error
