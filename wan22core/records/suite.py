"""The comprehensive run: the asked recipe beside another one, in fresh processes, and what it saves and costs."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from wan22core.records.base import Reading, Record
from wan22core.records.run import RunError, RunRecord
from wan22core.records.similarity import SimilarityRecord


class SuiteRole(StrEnum):
    """What a run of a suite is for."""

    COLD_LOAD = "cold_load"
    """The asked recipe's first load after the page cache gave the weights up."""
    BEFORE = "before"
    AFTER = "after"


class SuiteStep(Record):
    """One run of a suite, in a process of its own, as it ended."""

    role: SuiteRole
    pair: int | None
    """Which pair it belongs to, from 0; None outside the pairs."""
    recipe: str
    run: RunRecord | None
    """The run's document, broken ones too; None where it ended before anything was measured."""
    error: RunError | None
    """What kept it from leaving a document."""


class SuiteLoad(Record):
    """Loading the asked recipe."""

    recipe: str
    cold_s: Reading[float]
    """With the files on the disk only."""
    warm_s: Reading[float]
    """With the files in the page cache, the median of the runs."""


class SuiteSide(Record):
    """One recipe over all its runs in the pairs that count."""

    recipe: str
    runs: int
    """Runs that count."""
    peak_mib: float | None
    """Highest peak of the benchmark's ``metric``, loads included."""
    generation_s: float | None
    """Median of the measured generations."""
    error_code: str | None
    """Code of the first error of a run that broke, whether it counts or not."""
    error: str | None
    """That error in words: that a recipe runs out of memory is a result."""


class SuitePair(Record):
    """A run of each recipe, one after the other, each in a fresh process."""

    pair: int
    first: SuiteRole
    """Which of the two ran first; it alternates."""
    generation_before_s: float | None
    """Median of the measured generations."""
    generation_after_s: float | None
    time_price_pct: float | None
    """How much longer the second recipe takes; less than zero where it is faster."""
    reason: str | None
    """Why the pair does not count."""


class VramBenchmark(Record):
    """Memory and time of one recipe before, and of another after; signs are so that a saving is above zero."""

    metric: Literal["peak_process_mib", "peak_rss_mib"]
    """What was compared: the process's device memory, or resident memory where there is no GPU."""
    vram_reason: str | None
    """Why no VRAM was measured; None where it was."""
    before: SuiteSide
    after: SuiteSide
    pairs: list[SuitePair]
    saving_mib: float | None
    """Peak before less peak after."""
    saving_pct: float | None
    """The same by the peak before."""
    time_price_pct: float | None
    """Median over the pairs that count."""
    time_price_low_pct: float | None
    """Lowest of them."""
    time_price_high_pct: float | None
    """Highest of them."""
    score: float | None
    """0.7 x ``saving_pct`` - 0.3 x ``time_price_pct``, in points: 0 for no difference."""
    reason: str | None
    """Why there are no figures."""


class SuiteRecord(RunRecord):
    """A suite, whole: the asked recipe's run with the worst verdict as any run's document, and what is beside it."""

    suite_id: str
    suite_dir: str
    suite_summary: str
    """What was found, in a sentence or two."""
    steps: list[SuiteStep]
    """All runs in the order in which they ran, the failed ones too."""
    load: SuiteLoad
    vram_benchmark: VramBenchmark
    similarity: SimilarityRecord | None
    """The first pair's videos, after against before."""
    similarity_reason: str | None
    """Why they were not compared."""
