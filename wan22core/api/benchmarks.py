"""The original's entry point: three benchmarks of a loader and a generator, and all of them in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wan22core.api import in_process, in_worker
from wan22core.api.declared import HardwareProfile, TI2VBenchmarkTargets
from wan22core.api.results import DOCUMENT, BenchmarkResult, VramComparison, result_of
from wan22core.errors import UserInputError
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.settings import Settings
from wan22core.specs import WORKLOADS, BenchmarkSpec, Deadlines, OpaqueFunctions, Precision, Recipe, Workload
from wan22core.targets import Metric, RecipeClass

Loader = Callable[[], Any] | str
"""Called without arguments; returns the model. As ``module:function`` it runs in the worker."""
Generator = Callable[..., Any] | str
"""Called with the model and those of prompt, width, height, frames, fps, steps, guidance, seed that it takes."""

_GENERATION: tuple[Metric, ...] = ("generation_s", "generation_fps")
_MEMORY: tuple[Metric, ...] = ("peak_process_mib", "memory_efficiency")

_OWN_RECIPE = Recipe(
    name="own",
    recipe_class=RecipeClass.APPROXIMATE,  # what own functions do is unknown: the class that claims least
    transformer_precision=Precision.NONE,
    text_encoder_precision=Precision.NONE,
    vae_precision=Precision.NONE,
)


class WAN22PerformanceBenchmarks:
    """Measures a user's own loader and generator, and judges them by ``TI2VBenchmarkTargets``.

    Functions as ``module:function`` run in a fresh process that is killed at its deadlines; functions and closures run
    in this one, where nothing can be killed and the memory holds whatever else is here. ``measured_in`` says which.
    Device memory is measured with torch and a CUDA device: import torch at the top of the functions' module.
    A loader or generator that fails, or returns no usable video, is a named failure in the result and never a time.
    """

    def __init__(
        self,
        targets: TI2VBenchmarkTargets | None = None,
        *,
        workload: Workload = WORKLOADS["2s-720p"],
        repeats: int = 1,
        device: str = "auto",
        deadlines: Deadlines | None = None,
        settings: Settings | None = None,
    ) -> None:
        """``workload`` is the video to ask for; ``repeats`` how often; ``deadlines`` count in the worker only."""
        self.targets = targets or TI2VBenchmarkTargets()
        self.settings = settings or Settings()
        try:
            self._spec = BenchmarkSpec(
                workload=workload,
                recipe=_OWN_RECIPE,
                repeats=repeats,
                warmups=0,
                device=device,
                smoke_limits=(),
                deadlines=deadlines or Deadlines(),
            )
        except ValidationError as error:
            raise _bad_input(error) from error

    def benchmark_ti2v_5b_model_loading(
        self, loader: Loader, hardware_profile: HardwareProfile | None = None
    ) -> BenchmarkResult:
        """Loading alone, against ``model_load_time_max``."""
        name = "benchmark_ti2v_5b_model_loading"
        return self._run(name, _Functions.of(loader, None), ("load_s",), hardware_profile)

    def benchmark_video_generation_speed(
        self, loader: Loader, generator: Generator, hardware_profile: HardwareProfile | None = None
    ) -> BenchmarkResult:
        """Loading and a video, against ``video_2s_generation_max`` and ``target_generation_fps``."""
        name = "benchmark_video_generation_speed"
        return self._run(name, _Functions.of(loader, generator), _GENERATION, hardware_profile)

    def benchmark_vram_usage_optimization(
        self,
        loader: Loader,
        generator: Generator,
        optimized_loader: Loader | None = None,
        hardware_profile: HardwareProfile | None = None,
    ) -> VramComparison:
        """Peak device memory against ``vram_usage_max_mb``, before and after an optimization where one is given."""
        name = "benchmark_vram_usage_optimization"
        functions = [_Functions.of(each, generator) for each in (loader, optimized_loader) if each is not None]
        found = [self._run(name, each, _MEMORY, hardware_profile) for each in functions]
        return VramComparison.of(found[0], found[1] if len(found) > 1 else None)

    def run_comprehensive_ti2v_benchmark(
        self, loader: Loader, generator: Generator, hardware_profile: HardwareProfile | None = None
    ) -> BenchmarkResult:
        """Loading, generation and memory in one run, against all five targets."""
        metrics: tuple[Metric, ...] = ("load_s", *_GENERATION, *_MEMORY)
        name = "run_comprehensive_ti2v_benchmark"
        return self._run(name, _Functions.of(loader, generator), metrics, hardware_profile)

    def _run(
        self, benchmark: str, functions: _Functions, metrics: tuple[Metric, ...], declared: HardwareProfile | None
    ) -> BenchmarkResult:
        targets = self.targets.as_targets(metrics, self._spec.workload.name)
        spec = self._spec.model_copy(update={"targets": targets, "opaque": functions.dotted})
        folder = new_run_folder(self.settings.runs_path, new_run_id())
        if functions.dotted is not None:
            generates = functions.generator is not None
            command = f"WAN22PerformanceBenchmarks.{benchmark}{functions.names}"
            measured = in_worker.measure(spec, self.settings, folder, generates=generates, command=command)
        else:
            assert callable(functions.loader)
            generator = functions.generator if callable(functions.generator) else None
            measured = in_process.measure(spec, self.settings, folder, functions.loader, generator)
        result = result_of(benchmark, functions.names, measured, declared)
        result.save(Path(folder.path) / DOCUMENT)
        return result


@dataclass(frozen=True)
class _Functions:
    """A loader and a generator that run in one place."""

    loader: Loader
    generator: Generator | None
    dotted: OpaqueFunctions | None
    """Set when they run in the worker."""

    @classmethod
    def of(cls, loader: Loader, generator: Generator | None) -> _Functions:
        """Raises ``UserInputError`` for what is neither a function nor its dotted name, and for one of each."""
        given = [loader] if generator is None else [loader, generator]
        if all(callable(each) for each in given):
            return cls(loader, generator, None)
        if not all(isinstance(each, str) for each in given):
            raise UserInputError(
                f"Loader and generator are of different kinds: {' and '.join(map(_name, given))}.",
                next_action="Give both as functions, or both as module:function.",
            )
        try:
            # a benchmark of loading alone calls no generator: the loader stands for it, so that it can be imported
            dotted = OpaqueFunctions.model_validate({"loader": given[0], "generator": given[-1]})
        except ValidationError as error:
            raise _bad_input(error) from error
        return cls(loader, generator, dotted)

    @property
    def names(self) -> tuple[str, str | None]:
        return _name(self.loader), None if self.generator is None else _name(self.generator)


def _name(function: object) -> str:
    if isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}:{name}" if name is not None else repr(function)


def _bad_input(error: ValidationError) -> UserInputError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return UserInputError(
        f"{where} can't be {first['input']!r}: {first['msg']}.",
        next_action="Functions are named module:function, devices auto, cpu or cuda:N; repeats is 1 or more.",
    )
