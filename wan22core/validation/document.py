"""The document of a validation: its file, and the published schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from wan22core.files import write_json
from wan22core.records import ValidationReport
from wan22core.settings import Settings

SCHEMA_FILE = Path(__file__).parents[2] / "docs" / "schemas" / "validation.schema.json"


def write_report(report: ValidationReport, settings: Settings) -> None:
    """``validation.json`` in the validation's folder, all or nothing.

    Raises ``StorageError`` and ``InsufficientDiskSpaceError``.
    """
    write_json(settings.validations_path / report.id / "validation.json", report.model_dump(mode="json"))


def validation_schema() -> dict[str, Any]:
    """The published JSON Schema of ``wan22 validate --json``."""
    return ValidationReport.model_json_schema(mode="serialization")


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(validation_schema(), indent=2) + "\n", encoding="utf-8")
    sys.stderr.write(f"wrote {SCHEMA_FILE}\n")
