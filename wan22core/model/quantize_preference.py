"""What a person prefers of quantization, kept in the data folder for each model until it is changed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from wan22core.errors import UserInputError
from wan22core.files import write_json
from wan22core.records import Record
from wan22core.specs import Architecture

_FILE = "quantization.json"


class QuantizationPreference(StrEnum):
    """What recipes that quantize do on this machine."""

    INT8 = "int8"
    """They try int8 first."""
    FP8 = "fp8"
    """They try fp8 first."""
    OFF = "off"
    """They don't: they run their working precision."""


class QuantizationPreferences(Record):
    """The preferences of one machine's user."""

    for_all: QuantizationPreference | None = None
    """For every model without one of its own; None leaves it to the recipe."""
    by_model: dict[str, QuantizationPreference] = Field(default_factory=dict)
    """``tiny``, ``ti2v-5b``, a hub id or the absolute path of a folder -> its preference."""

    def of(self, model: str) -> QuantizationPreference | None:
        """The one that counts for ``model``, as a spec names it."""
        return self.by_model.get(_key(model), self.for_all)


def load_preferences(data_dir: Path) -> QuantizationPreferences:
    """The preferences; none where nobody has any. Raises ``UserInputError`` for a file that can't be understood."""
    path = data_dir / _FILE
    if not path.exists():
        return QuantizationPreferences()
    try:
        return QuantizationPreferences.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise UserInputError(
            f"{path} can't be understood, and what you prefer of quantization is in it.",
            next_action="Delete it, and say it again with wan22 weights prefer.",
        ) from error


def prefer(data_dir: Path, preference: QuantizationPreference | None, model: str | None) -> QuantizationPreferences:
    """Keeps a preference for a model, or for all that have none of their own; None forgets it."""
    kept = load_preferences(data_dir)
    if model is None:
        changed = kept.model_copy(update={"for_all": preference})
    else:
        others = {name: each for name, each in kept.by_model.items() if name != _key(model)}
        own = {} if preference is None else {_key(model): preference}
        changed = kept.model_copy(update={"by_model": others | own})
    write_json(data_dir / _FILE, changed.model_dump(mode="json"))
    return changed


def _key(model: str) -> str:
    """A folder is known by its absolute path, however it is written."""
    path = Path(model).expanduser()
    is_folder = model not in {each.value for each in Architecture} and path.exists()
    return str(path.resolve()) if is_folder else model
