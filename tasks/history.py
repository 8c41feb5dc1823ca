"""Record the history."""

from __future__ import annotations

from prefect import task

from tasks.options import RETRIED
from wan22core.records import RunRecord
from wan22core.settings import Settings


@task(name="record-history", timeout_seconds=120, **RETRIED)
def record_history(record: RunRecord, settings: Settings) -> None:
    """The run into the database, with those that waited for it."""
    from wan22core.history.store import store_run

    store_run(settings.history_url, record, settings.outbox_path)
