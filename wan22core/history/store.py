"""The store of runs."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, ValidationError

from wan22core.errors import HistoryConflictError, HistorySchemaError, UnknownNameError, UserInputError
from wan22core.files import write_text
from wan22core.history.schema import naming_errors, open_engine
from wan22core.records import RunRecord, RunState

_log = logging.getLogger(__name__)

_TABLES = ("series", "environments", "runs", "repeats", "stages", "baselines")


class RunSummary(BaseModel):
    """A run in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    created_at: datetime
    verdict: RunState
    architecture: str
    workload: str
    recipe: str
    device_name: str | None
    series_key: str
    run_dir: str


class Baseline(BaseModel):
    """A run that people named as what others are compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    run_id: str
    promoted_at: datetime
    note: str


class HistoryStore:
    """Runs in a database; every method raises ``HistoryUnavailableError`` when it can't be reached."""

    def __init__(self, url: str) -> None:
        """Opens, creates or migrates; raises ``HistorySchemaError`` for a database of a newer wan22."""
        self._url = url
        self._engine = open_engine(url)
        metadata = sa.MetaData()
        with naming_errors(url):
            metadata.reflect(self._engine, only=_TABLES)
        self._tables = metadata.tables

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    def add(self, record: RunRecord) -> None:
        """Stores a run, all or nothing. The same run again changes nothing; another one of that id is refused."""
        runs = self._tables["runs"]
        document = record.model_dump(mode="json")
        with naming_errors(self._url), self._engine.begin() as connection:
            known = connection.execute(
                sa.select(runs.c.document).where(runs.c.run_id == record.run_id)
            ).scalar_one_or_none()
            if known is not None:
                if known != document:
                    raise HistoryConflictError(
                        f"The history already holds another run {record.run_id}.",
                        next_action="Keep the run's folder; a run is never overwritten.",
                    )
                return
            self._add_key(connection, "series", record.series_key, record.labels.model_dump(mode="json"))
            self._add_key(connection, "environments", record.environment_key, record.environment)
            connection.execute(sa.insert(runs).values(_run_row(record, document)))
            if record.repeats:
                connection.execute(
                    sa.insert(self._tables["repeats"]), self._rows("repeats", record.run_id, record.repeats)
                )
            if record.stages:
                connection.execute(
                    sa.insert(self._tables["stages"]), self._rows("stages", record.run_id, record.stages)
                )

    def list_runs(self, limit: int = 20, *, workload: str | None = None, recipe: str | None = None) -> list[RunSummary]:
        """The newest runs first."""
        runs = self._tables["runs"]
        query = sa.select(*(runs.c[name] for name in RunSummary.model_fields)).order_by(runs.c.created_at.desc())
        if workload is not None:
            query = query.where(runs.c.workload == workload)
        if recipe is not None:
            query = query.where(runs.c.recipe == recipe)
        with naming_errors(self._url), self._engine.connect() as connection:
            return [RunSummary(**_utc(row, "created_at")) for row in connection.execute(query.limit(limit)).mappings()]

    def get(self, run_id: str) -> RunRecord:
        """The run whose id is, or alone begins with, ``run_id``; ``UnknownNameError`` names those near it.

        Raises ``HistorySchemaError`` for a run whose document another version wrote in a form that is not this one's.
        """
        runs = self._tables["runs"]
        with naming_errors(self._url), self._engine.connect() as connection:
            ids = list(connection.execute(sa.select(runs.c.run_id)).scalars())
            chosen = [run_id] if run_id in ids else [each for each in ids if each.startswith(run_id)]
            if len(chosen) != 1:
                near = chosen[:3] or get_close_matches(run_id, ids, n=3) or ids[-3:]
                raise UnknownNameError(
                    f"{len(chosen) or 'No'} runs in the history begin with {run_id!r}.",
                    next_action=f"Near it: {', '.join(near) or 'none'}. See wan22 history list.",
                )
            document = connection.execute(sa.select(runs.c.document).where(runs.c.run_id == chosen[0])).scalar_one()
        try:
            return RunRecord.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise HistorySchemaError(
                f"The run {chosen[0]} in the history can't be understood by this wan22: {place}: {first['msg']}.",
                next_action="Read it with the version that wrote it; the run's own folder has its reports.",
            ) from error

    def set_baseline(self, name: str, run_id: str, note: str = "") -> Baseline:
        """Names a run (by its id or the beginning of it) as what others are compared with; the name may be taken over.

        Raises ``UserInputError`` for a run that may not be compared, ``UnknownNameError`` for one that is not there.
        """
        record = self.get(run_id)
        if record.verdict in (RunState.BROKEN, RunState.INTEGRITY_FAILED) or not record.labels.comparable:
            raise UserInputError(
                f"The run {record.run_id} can't be a baseline: it is {record.verdict.value}, or was resumed, fell back "
                "or needed a second attempt.",
                next_action="Choose a run that went through at once: wan22 history list.",
            )
        found = Baseline(name=name, run_id=record.run_id, promoted_at=datetime.now(UTC), note=note)
        table = self._tables["baselines"]
        with naming_errors(self._url), self._engine.begin() as connection:
            connection.execute(sa.delete(table).where(table.c.name == name))
            connection.execute(sa.insert(table).values(found.model_dump()))
        return found

    def baselines(self) -> list[Baseline]:
        """All names, in their order."""
        table = self._tables["baselines"]
        with naming_errors(self._url), self._engine.connect() as connection:
            rows = connection.execute(sa.select(table).order_by(table.c.name)).mappings()
            return [Baseline(**_utc(row, "promoted_at")) for row in rows]

    def baseline_run(self, name: str) -> RunRecord:
        """The run behind a name; ``UnknownNameError`` says which names there are."""
        known = {each.name: each.run_id for each in self.baselines()}
        if name not in known:
            raise UnknownNameError(
                f"There is no baseline {name!r}.",
                next_action=f"Baselines are: {', '.join(known) or 'none'}. wan22 history baseline set makes one.",
            )
        return self.get(known[name])

    def remove_baseline(self, name: str) -> None:
        """Forgets a name; its run stays. Raises ``UnknownNameError``."""
        self.baseline_run(name)
        table = self._tables["baselines"]
        with naming_errors(self._url), self._engine.begin() as connection:
            connection.execute(sa.delete(table).where(table.c.name == name))

    def remove_older_than(self, cutoff: datetime) -> list[str]:
        """Removes the runs made before ``cutoff`` (aware) from the database, baselines excepted; returns their ids."""
        runs, baselines = self._tables["runs"], self._tables["baselines"]
        old = (runs.c.created_at < cutoff.astimezone(UTC)) & runs.c.run_id.not_in(sa.select(baselines.c.run_id))
        with naming_errors(self._url), self._engine.begin() as connection:
            ids = list(connection.execute(sa.select(runs.c.run_id).where(old).order_by(runs.c.created_at)).scalars())
            connection.execute(sa.delete(runs).where(runs.c.run_id.in_(ids)))
        return ids

    def _add_key(self, connection: sa.Connection, name: str, key: str, parts: dict[str, Any]) -> None:
        table = self._tables[name]
        column = next(iter(table.primary_key.columns))
        if connection.execute(sa.select(column).where(column == key)).first() is None:
            connection.execute(sa.insert(table).values({column.name: key, "parts": parts}))

    def _rows(self, name: str, run_id: str, records: Any) -> list[dict[str, Any]]:
        wanted = set(self._tables[name].columns.keys())
        return [{"run_id": run_id, **record.model_dump(mode="json", include=wanted)} for record in records]


def read_baseline(url: str, name: str) -> RunRecord:
    """The run behind a baseline's name; raises what the store raises."""
    store = HistoryStore(url)
    try:
        return store.baseline_run(name)
    finally:
        store.close()


def store_waiting(url: str, outbox: Path) -> None:
    """Stores the runs that wait in ``outbox``; what can't be read there is set aside. Raises what the store raises."""
    store = HistoryStore(url)
    try:
        for waiting in sorted(outbox.glob("*.json")):
            _take_in(store, waiting)
    finally:
        store.close()


def _take_in(store: HistoryStore, waiting: Path) -> None:
    """One run that waited. Another version's document, or one that contradicts the store, must not stop the others."""
    try:
        store.add(RunRecord.model_validate_json(waiting.read_bytes()))
    except FileNotFoundError:
        _log.info("%s went into the history from another process.", waiting)
        return
    except (ValidationError, HistoryConflictError) as error:
        _log.warning("%s can't go into the history and is set aside: %s", waiting, error)
        waiting.rename(waiting.with_suffix(".refused"))
        return
    waiting.unlink(missing_ok=True)


def keep_for_later(record: RunRecord, outbox: Path) -> Path:
    """Keeps a run for the next ``store_waiting``: from here on a night without a database loses nothing."""
    path = outbox / f"{record.run_id}.json"
    write_text(path, record.model_dump_json())
    return path


def remove_folders(parent: Path, names: list[str]) -> list[Path]:
    """Deletes the folders of these names directly under ``parent``, links excepted; returns what was deleted."""
    removed = []
    for name in names:
        folder = parent / name
        if folder.is_dir() and not folder.is_symlink() and folder.parent == parent:
            shutil.rmtree(folder)
            removed.append(folder)
    return removed


def _run_row(record: RunRecord, document: dict[str, Any]) -> dict[str, Any]:
    labels = record.labels
    return {
        "run_id": record.run_id,
        "created_at": record.created_at.astimezone(UTC),
        "verdict": record.verdict.value,
        "summary": record.summary,
        "series_key": record.series_key,
        "environment_key": record.environment_key,
        "device": labels.device,
        "device_name": labels.device_name,
        "architecture": labels.architecture,
        "workload": labels.workload,
        "recipe": labels.recipe,
        "comparable": labels.comparable,
        "run_dir": record.run_dir,
        "document": document,
    }


def _utc(row: sa.RowMapping, column: str) -> dict[str, Any]:
    """SQLite gives naive times back; they were stored in UTC."""
    values = dict(row)
    at = values[column]
    values[column] = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return values
