"""The validations so far."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from wan22core.history.schema import naming_errors, open_engine
from wan22core.records import ValidationReport, VerdictValue

_TABLE = sa.table(
    "validations",
    sa.column("id", sa.String),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("host", sa.String),
    sa.column("verdict", sa.String),
    sa.column("success_rate", sa.Float),
    sa.column("document", sa.JSON),
)


class ValidationSummary(BaseModel):
    """A validation in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    created_at: datetime
    host: str
    verdict: VerdictValue
    success_rate: float | None


def store_validation(url: str, report: ValidationReport) -> None:
    """Stores a report; the same one again changes nothing. Raises ``HistoryUnavailableError``."""
    row = {name: getattr(report, name) for name in ValidationSummary.model_fields}
    row |= {"created_at": report.created_at.astimezone(UTC), "verdict": report.verdict.value}
    engine = open_engine(url)
    try:
        with naming_errors(url), engine.begin() as connection:
            known = connection.execute(sa.select(_TABLE.c.id).where(_TABLE.c.id == report.id)).first()
            if known is None:
                connection.execute(sa.insert(_TABLE).values(**row, document=report.model_dump(mode="json")))
    finally:
        engine.dispose()


def list_validations(url: str, limit: int = 20) -> list[ValidationSummary]:
    """The newest first. Raises ``HistoryUnavailableError``."""
    columns = [_TABLE.c[name] for name in ValidationSummary.model_fields]
    query = sa.select(*columns).order_by(_TABLE.c.created_at.desc()).limit(limit)
    engine = open_engine(url)
    try:
        with naming_errors(url), engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()
    return [ValidationSummary(**row | {"created_at": _aware(row["created_at"])}) for row in rows]


def remove_validations_older_than(url: str, cutoff: datetime) -> list[str]:
    """Removes those made before ``cutoff`` (aware); their ids, the oldest first. Raises ``HistoryUnavailableError``."""
    old = _TABLE.c.created_at < cutoff.astimezone(UTC)
    engine = open_engine(url)
    try:
        with naming_errors(url), engine.begin() as connection:
            ids = connection.execute(sa.select(_TABLE.c.id).where(old).order_by(_TABLE.c.created_at)).scalars().all()
            connection.execute(sa.delete(_TABLE).where(old))
    finally:
        engine.dispose()
    return [str(each) for each in ids]


def _aware(at: datetime) -> datetime:
    """SQLite gives naive times back; they were stored in UTC."""
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
