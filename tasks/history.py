"""Record the history."""

from __future__ import annotations

from prefect import task

from tasks.options import RETRIED
from wan22core.settings import Settings


@task(name="record-history", timeout_seconds=120, **RETRIED)
def record_history(settings: Settings) -> None:
    """The run into the database, with all others that wait for it."""
    from wan22core.history.store import store_waiting

    store_waiting(settings.history_url, settings.outbox_path)
