"""``run.json``: the document behind ``--json``, its schema, and reading it back."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wan22core.errors import UserInputError
from wan22core.files import write_json
from wan22core.records import RunRecord

RUN_FILE = "run.json"
SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "schemas" / "run.schema.json"
_SECRETS = (
    (re.compile(r"hf_[A-Za-z0-9]{20,}"), "hf_***"),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), "***"),
)


def run_document(record: RunRecord) -> dict[str, Any]:
    """The record as JSON values; tokens and passwords in any text are blotted out."""
    return dict(_redacted(record.model_dump(mode="json")))


def write_document(folder: Path, record: RunRecord) -> None:
    """Writes ``run.json``, all or nothing."""
    write_json(folder / RUN_FILE, run_document(record))


def load_run(folder: Path) -> RunRecord:
    """The record of a run folder; ``UserInputError`` when there is none."""
    path = folder / RUN_FILE
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserInputError(
            f"{path} can't be read: {error.strerror or error}.", next_action="Give the folder of a finished run."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserInputError(
            f"{path} is no run document: {where}: {first['msg']}.", next_action="Give the folder of a finished run."
        ) from error


def run_schema() -> dict[str, Any]:
    """The published JSON Schema of ``run.json``."""
    return RunRecord.model_json_schema(mode="serialization")


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    if isinstance(value, str):
        for pattern, replacement in _SECRETS:
            value = pattern.sub(replacement, value)
    return value


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(run_schema(), indent=2) + "\n", encoding="utf-8")
    sys.stderr.write(f"wrote {SCHEMA_FILE}\n")
