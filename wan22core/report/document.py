"""``run.json`` and ``suite.json``: the documents behind ``--json``, their schemas, and reading them back."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from wan22core.errors import UserInputError
from wan22core.files import write_json
from wan22core.records import RunRecord, SuiteRecord

RUN_FILE = "run.json"
SUITE_FILE = "suite.json"
SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "schemas" / "run.schema.json"
SUITE_SCHEMA_FILE = SCHEMA_FILE.with_name("suite.schema.json")
R = TypeVar("R", bound=RunRecord)
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
    return _load(folder / RUN_FILE, RunRecord)


def load_suite(folder: Path) -> SuiteRecord:
    """The record of a suite's folder; ``UserInputError`` when there is none."""
    return _load(folder / SUITE_FILE, SuiteRecord)


def _load(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(path.read_bytes())
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


def suite_schema() -> dict[str, Any]:
    """The published JSON Schema of ``suite.json``."""
    return SuiteRecord.model_json_schema(mode="serialization")


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
    for file, schema in ((SCHEMA_FILE, run_schema()), (SUITE_SCHEMA_FILE, suite_schema())):
        file.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
        sys.stderr.write(f"wrote {file}\n")
