"""Opens a database at the newest schema: created, migrated, or refused when it is newer than this program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock

from wan22core.errors import HistorySchemaError, HistoryUnavailableError

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_S = 30


def open_engine(url: str) -> sa.Engine:
    """An engine on a database at the newest schema.

    Raises ``HistoryUnavailableError`` when the database can't be reached, read or written, and ``HistorySchemaError``
    when it was written by a newer wan22.
    """
    with naming_errors(url):
        parsed = sa.make_url(url)
        local = parsed.get_backend_name() == "sqlite"
        engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY_S} if local else {"connect_timeout": 10})
        if local:
            sa.event.listen(engine, "connect", _prepare_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        file = Path(parsed.database) if local and parsed.database not in (None, "", ":memory:") else None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock") if file is not None else nullcontext():
            _upgrade(engine, shown(url))
        return engine


def shown(url: str) -> str:
    """The URL without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "the history's URL"


@contextmanager
def naming_errors(url: str) -> Iterator[None]:
    """The database's exceptions as one sentence, without the password."""
    try:
        yield
    except sa.exc.ArgumentError as error:
        raise HistoryUnavailableError(
            "The history's URL can't be parsed.", next_action="Set WAN22_DATABASE_URL to a SQLAlchemy URL."
        ) from error
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        first = str(cause).strip().partition("\n")[0]
        raise HistoryUnavailableError(
            f"The history {shown(url)} can't be used: {first}.",
            next_action="Start the database, check WAN22_DATABASE_URL and the permissions; the run folder is complete.",
        ) from error


def _prepare_sqlite(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    """Foreign keys are off by default, and Python's driver would commit before each change of the schema."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(engine: sa.Engine, name: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # two processes that start at once: the second waits
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(22225)"))
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise HistorySchemaError(
                f"The history {name} has schema {current}; this wan22 knows up to {newest}.",
                next_action="Update wan22, or point WAN22_DATABASE_URL to another database.",
            )
        if current != newest:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
