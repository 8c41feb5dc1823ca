"""The document of a validation: its file, and the published schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from wan22core.files import write_json
from wan22core.records import ValidationReport
from wan22core.validation.context import Context

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "schemas" / "validation.schema.json"


def write_report(context: Context, report: ValidationReport) -> Path:
    """``validation.json`` in the validation's folder, all or nothing."""
    path = context.folder / "validation.json"
    write_json(path, report.model_dump(mode="json"))
    return path


def validation_schema() -> dict[str, Any]:
    """The published JSON Schema of ``wan22 validate --json``."""
    return ValidationReport.model_json_schema(mode="serialization")


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(validation_schema(), indent=2) + "\n", encoding="utf-8")
    sys.stderr.write(f"wrote {SCHEMA_FILE}\n")
