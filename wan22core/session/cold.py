"""Weights that the page cache gave up, so that a load is the disk's time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wan22core import page_cache
from wan22core.records import Progress
from wan22core.session.weights import prepare_weights
from wan22core.settings import Settings
from wan22core.specs import BenchmarkSpec


def cool_weights(
    spec: BenchmarkSpec, settings: Settings, log_path: Path, on_progress: Callable[[Progress], None] | None = None
) -> str | None:
    """Makes the page cache give up the files of a spec's weights, which are made where they are not there yet.

    Why it may hold some of them still, None where it was seen to hold none. Raises what ``prepare_weights`` raises.
    """
    if spec.opaque is not None:
        return "a user's own functions bring their own weights"
    folder = Path(prepare_weights(spec.weights, settings, log_path, on_progress).folder)
    reasons = [page_cache.empty(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    return next((reason for reason in reasons if reason is not None), None)
