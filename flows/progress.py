"""Who wants to hear about the progress of a run: somebody in this process, and whoever looks at Prefect's UI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from wan22core.records import Progress

OnProgress = Callable[[Progress], None]
_listener: ContextVar[OnProgress | None] = ContextVar("wan22_progress", default=None)


def listener() -> OnProgress | None:
    """Whom to tell, None when nobody listens."""
    return _listener.get()


@contextmanager
def listening(on_progress: OnProgress | None) -> Iterator[None]:
    """``on_progress`` hears of every run that starts inside the block."""
    token = _listener.set(on_progress)
    try:
        yield
    finally:
        _listener.reset(token)


class ShownProgress:
    """The bar in Prefect's UI. It moves between the stages only: what is measured pays for nothing of it.

    A server that does not answer costs the bar, and not the run.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0
        self._artifact: UUID | None = None
        with _told():
            made = create_progress_artifact(progress=0.0, key="progress", description="The load and each video")
            self._artifact = cast("UUID", made)  # a coroutine only where the caller is one

    def advance(self) -> None:
        """One more step is done."""
        self._done += 1
        if self._artifact is not None:
            with _told():
                update_progress_artifact(self._artifact, progress=100 * self._done / self._steps)


@contextmanager
def _told() -> Iterator[None]:
    """What Prefect's client raises for a server that is away is logged."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        logging.getLogger("wan22.progress").warning("The progress can't be shown: %s", error)
