"""Who wants to hear about the progress of a run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
