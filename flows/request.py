"""What a person asks for, in the command line or in the UI's form, and the spec that it means."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wan22core.errors import UnknownNameError, UserInputError
from wan22core.recipes import RECIPES, recipe, with_text_encoder
from wan22core.specs import WAN_ENGINE, WORKLOADS, BenchmarkSpec, Precision, Recipe, Weights, Workload
from wan22core.targets import Target

WorkloadName = StrEnum("WorkloadName", {name: name for name in WORKLOADS})  # type: ignore[misc]
RecipeName = StrEnum("RecipeName", {name: name for name in RECIPES})  # type: ignore[misc]

_OVERRIDES = ("width", "height", "frames", "fps", "steps", "guidance", "prompt", "negative_prompt", "image", "seed")
_IDENTITY_OVERRIDES = ("width", "height", "frames", "fps", "steps", "guidance")


class BenchmarkRequest(BaseModel):
    """One benchmark as people ask for it; every override that is left empty keeps the workload's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        default="tiny",
        min_length=1,
        description="tiny or ti2v-5b (random weights of the true architecture), a checkpoint folder, or a hub id",
    )
    workload: WorkloadName = Field(default=WorkloadName("smoke"), description="The video to make")
    recipe: RecipeName = Field(default=RecipeName("reference"), description="How to run the model")
    text_encoder: Literal["bf16", "fp16", "int8", "fp8"] | None = Field(
        default=None, description="Precision of the text encoder, where it is not the recipe's"
    )
    repeats: int = Field(default=3, ge=1, le=1000, description="Measured generations")
    warmups: int = Field(default=1, ge=0, le=100, description="Generations before them, kept apart")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda:N")
    vram_limit_mib: int | None = Field(default=None, gt=0, description="Emulated ceiling on device memory, MiB")
    width: int | None = Field(default=None, description="Pixels, a multiple of 32")
    height: int | None = Field(default=None, description="Pixels, a multiple of 32")
    frames: int | None = Field(default=None, description="4k+1 frames; not together with duration_s")
    duration_s: float | None = Field(default=None, gt=0, le=30, description="Seconds of video, instead of frames")
    fps: int | None = Field(default=None, description="Frames per second")
    steps: int | None = Field(default=None, description="Denoising steps")
    guidance: float | None = Field(default=None, description="Classifier-free guidance")
    prompt: str | None = Field(default=None, description="What to show")
    negative_prompt: str | None = Field(default=None, description="What to avoid")
    image: Path | None = Field(default=None, description="Start from this image")
    seed: int | None = Field(default=None, description="Seed of the start noise")
    host_settings: Literal["stock", "auto"] = Field(
        default="stock", description="Leave the host as it is, or apply the settings planned for this machine"
    )
    keep_frames: bool = Field(default=False, description="Keep the decoded frames too, to compare those of two runs")
    engine: str = Field(default=WAN_ENGINE, description="Another system under test, by its name or as module:Class")
    spec: BenchmarkSpec | None = Field(default=None, description="A complete spec, instead of everything above")

    def to_spec(self) -> BenchmarkSpec:
        """The complete spec; ``UserInputError`` says what can't be made and the nearest that can."""
        if self.spec is not None:
            return _named_truly(self.spec)
        try:
            return BenchmarkSpec(
                workload=self._workload(),
                weights=Weights(model=self.model),
                recipe=self._recipe(),
                repeats=self.repeats,
                warmups=self.warmups,
                device=self.device,
                vram_limit_mib=self.vram_limit_mib,
                host_settings=self.host_settings,
                keep_frames=self.keep_frames,
                engine=self.engine,
            )
        except ValidationError as error:
            raise invalid_input(error) from error

    def command(self, name: str = "benchmark") -> str:
        """The command line that asks for the same."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        if self.spec is not None:
            return f"wan22 {name} --spec spec.json  # spec.json: the key spec of run.json"
        names = {"duration_s": "duration"}
        words = ["wan22", *name.split()]
        for field, value in given.items():
            option = f"--{names.get(field, field).replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
        return shlex.join(words)

    def _recipe(self) -> Recipe:
        asked = recipe(self.recipe.value)
        return asked if self.text_encoder is None else with_text_encoder(asked, Precision(self.text_encoder))

    def _workload(self) -> Workload:
        base = WORKLOADS[self.workload.value]
        changes: dict[str, Any] = {name: value for name in _OVERRIDES if (value := getattr(self, name)) is not None}
        if self.duration_s is not None:
            if self.frames is not None:
                raise UserInputError(
                    "Both a duration and a number of frames were given.", next_action="Give one of the two."
                )
            changes["frames"] = _frames_of(self.duration_s, changes.get("fps", base.fps))
        if "image" in changes:
            changes["image_to_video"] = True
        values = {**base.model_dump(), **changes}
        if any(values[name] != getattr(base, name) for name in (*_IDENTITY_OVERRIDES, "image_to_video")):
            values["name"] = _name_of(values)
        return Workload(**values)


SUITE_RECIPE = RecipeName("low_8g")
"""What a suite measures where nothing else is asked for: it runs everywhere, and without loss."""


class SuiteRequest(BaseModel):
    """One recipe beside another, in pairs of runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: BenchmarkRequest = Field(
        default=BenchmarkRequest(recipe=SUITE_RECIPE), description="What is measured, with which recipe"
    )
    before: RecipeName = Field(default=RecipeName("reference"), description="The recipe that it is held against")
    pairs: int = Field(default=2, ge=1, le=100, description="Runs of each of the two, alternating")

    def command(self) -> str:
        """The command line that asks for the same."""
        return self.benchmark.command(f"suite --before {self.before.value} --pairs {self.pairs}")


def request_from(asked: dict[str, Any]) -> BenchmarkRequest:
    """The request of a command line; options that were not given keep their defaults.

    Raises ``UserInputError`` that names the nearest valid name or value.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    spec_file, targets_file = given.pop("spec_file", None), given.pop("targets_file", None)
    if spec_file is not None and given:
        raise UserInputError(
            f"--spec is complete by itself, and {', '.join(sorted(given))} was given beside it.",
            next_action="Put the values into the spec, or leave --spec out.",
        )
    if (image := given.get("image")) is not None and not image.is_file():
        raise UserInputError(f"The start image {image} is not there.", next_action="Give a PNG or JPEG file.")
    if "recipe" in given:
        recipe(given["recipe"])
    if "workload" in given and given["workload"] not in WORKLOADS:
        raise UnknownNameError(
            f"There is no workload {given['workload']!r}.", next_action=f"The workloads are: {', '.join(WORKLOADS)}."
        )
    try:
        request = BenchmarkRequest(**given)
        if spec_file is not None:
            request = BenchmarkRequest(spec=BenchmarkSpec.model_validate_json(_text_of(spec_file)))
        if targets_file is not None:
            targets = TypeAdapter(tuple[Target, ...]).validate_json(_text_of(targets_file))
            spec = request.to_spec().model_dump() | {"targets": targets}
            request = BenchmarkRequest(spec=BenchmarkSpec.model_validate(spec))
    except ValidationError as error:
        raise invalid_input(error) from error
    return request


def _named_truly(spec: BenchmarkSpec) -> BenchmarkSpec:
    """A recipe's name stands for its values: a spec that was edited by hand needs a name of its own."""
    if spec.recipe.name in RECIPES and spec.recipe != recipe(spec.recipe.name):
        raise UserInputError(
            f"The spec's recipe is called {spec.recipe.name} and has other values than that recipe.",
            next_action="Give it another name.",
        )
    return spec


def _text_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserInputError(
            f"{file} can't be read: {error.strerror}.", next_action="Give an existing file."
        ) from error


def _frames_of(duration_s: float, fps: int) -> int:
    """The 4k+1 frames nearest to a duration: 2 s at 24 fps are 49."""
    return max(1, round(duration_s * fps / 4) * 4 + 1)


def _name_of(values: dict[str, Any]) -> str:
    """A workload with overrides is named by its values."""
    kind = "-i2v" if values["image_to_video"] else ""
    return (
        f"{values['width']}x{values['height']}-{values['frames']}f-{values['fps']}fps-"
        f"{values['steps']}steps-g{values['guidance']:g}{kind}"
    )


def invalid_input(error: ValidationError) -> UserInputError:
    """pydantic's findings as one sentence."""
    findings = "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'value'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )
    return UserInputError(
        f"The request is not valid: {findings}.", next_action="Change the named values and try again."
    )
