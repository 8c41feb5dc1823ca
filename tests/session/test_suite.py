"""A suite's record, made of its runs: what is saved, what it costs, and what is never left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.builders import make_labels, make_repeats, make_run_record, make_spec
from wan22core.recipes import recipe
from wan22core.records import RunError, RunRecord, RunState, SuiteRecord, SuiteRole, SuiteStep
from wan22core.report.document import load_suite, run_document, suite_schema
from wan22core.report.suite import suite_markdown, suite_text
from wan22core.session.folder import RunFolder
from wan22core.session.suite import SuiteHeader, assemble_suite, score, suite_steps

OUT_OF_MEMORY = RunError(code="CUDA_OUT_OF_MEMORY", message="20 GiB were asked for.", next="", stage=None, log=None)


def a_run(peak_mib: float = 10_000, *generation_s: float, cuda: bool = True, **changes: Any) -> RunRecord:
    """A run with this peak and these generations."""
    metric = "peak_process_mib" if cuda else "peak_rss_mib"
    template = make_repeats(cuda=cuda)[1]
    seconds = generation_s or (10.0,)
    rows = [
        template.model_copy(update={metric: peak_mib, "generation_s": each, "repeat": number, "load_s": 3.0})
        for number, each in enumerate(seconds)
    ]
    return make_run_record(cuda=cuda, repeats=rows, **changes)


def step(role: SuiteRole, pair: int | None, run: RunRecord | None, error: RunError | None = None) -> SuiteStep:
    name = "reference" if role is SuiteRole.BEFORE else "small"
    return SuiteStep(role=role, pair=pair, recipe=name, run=run, error=error)


def a_suite(*pairs: tuple[RunRecord | None, RunRecord | None], cold: RunRecord | None = None) -> SuiteRecord | None:
    steps = [step(SuiteRole.COLD_LOAD, None, cold)]
    for number, (before, after) in enumerate(pairs):
        steps += [step(SuiteRole.BEFORE, number, before), step(SuiteRole.AFTER, number, after)]
    header = SuiteHeader(RunFolder("s1", Path("/runs/s1")), "wan22 suite", None)
    return assemble_suite(header, steps, None, "one of the two left no run")


def made(*pairs: tuple[RunRecord | None, RunRecord | None], cold: RunRecord | None = None) -> SuiteRecord:
    suite = a_suite(*pairs, cold=cold)
    assert suite is not None
    return suite


def test_the_sides_alternate_after_a_cold_load() -> None:
    """Which of the two is first changes from pair to pair; only the first pair keeps its frames."""
    spec, before = make_spec(), recipe("reference")
    asked = spec.model_copy(update={"recipe": before.model_copy(update={"name": "small"})})
    steps = suite_steps(asked, before, 3)
    assert [(each.role.value, each.pair) for each in steps] == [
        ("cold_load", None),
        ("before", 0), ("after", 0), ("after", 1), ("before", 1), ("before", 2), ("after", 2),
    ]  # fmt: skip
    assert [each.spec.recipe.name for each in steps[:3]] == ["small", "reference", "small"]
    assert [each.spec.keep_frames for each in steps] == [False, True, True, False, False, False, False]
    assert (steps[0].spec.repeats, steps[0].spec.warmups, steps[1].spec.repeats) == (1, 0, spec.repeats)


def test_saving_price_and_score_by_hand() -> None:
    """10,000 -> 6,000 MiB, 10 -> 11 s and 10 -> 13 s: 40 % less, +20 % time (10 to 30), 0.7 x 40 - 0.3 x 20 = 22."""
    suite = made(
        (a_run(9000, 9, 10, 11), a_run(6000, 11, 11, 11)),
        (a_run(10_000, 10), a_run(5000, 13)),
    )
    memory = suite.vram_benchmark
    assert (memory.metric, memory.vram_reason, memory.reason) == ("peak_process_mib", None, None)
    assert (memory.before.peak_mib, memory.after.peak_mib) == (10_000, 6000)
    assert (memory.saving_mib, memory.saving_pct) == (4000, pytest.approx(40))
    assert [pair.time_price_pct for pair in memory.pairs] == [pytest.approx(10), pytest.approx(30)]
    found = (memory.time_price_pct, memory.time_price_low_pct, memory.time_price_high_pct)
    assert found == (pytest.approx(20), pytest.approx(10), pytest.approx(30))
    assert memory.score == pytest.approx(22)
    assert suite.suite_summary == ("small beside reference: 4,000 MiB (40.0 %) less VRAM, +20.0 % time, score 22.0.")


def test_the_score_needs_both_of_its_parts() -> None:
    assert (score(None, 1.0), score(1.0, None), score(0.0, 0.0)) == (None, None, 0.0)
    assert score(-10.0, -50.0) == pytest.approx(8)


def test_a_before_that_runs_out_of_memory_is_a_result() -> None:
    """Its run is kept and named; there is no saving against a run that was never whole."""
    suite = made((make_run_record(cuda=True, error=OUT_OF_MEMORY), a_run(6000)))
    memory = suite.vram_benchmark
    assert (memory.saving_mib, memory.saving_pct, memory.time_price_pct, memory.score) == (None, None, None, None)
    assert (memory.before.error_code, memory.before.runs) == ("CUDA_OUT_OF_MEMORY", 0)
    assert memory.reason == "reference broke: 20 GiB were asked for."
    assert suite.suite_summary.endswith("because reference broke (CUDA_OUT_OF_MEMORY).")
    assert suite.verdict is not RunState.BROKEN, "it is not the asked recipe that broke"
    assert suite.steps[1].run is not None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"fallback": True, "attempts": 2}, "small fell back"),
        ({"attempts": 2}, "small needed a second attempt"),
        ({"thermally_throttled": True}, "small was slowed by heat"),
    ],
)
def test_a_run_that_may_not_be_compared_enters_no_figure(labels: dict[str, Any], words: str) -> None:
    """Its pair is shown with the reason, and the other pair counts alone."""
    odd = a_run(1000, 99, labels=make_labels(cuda=True, **labels))
    memory = made((a_run(), odd), (a_run(10_000, 10), a_run(9000, 11))).vram_benchmark
    assert [pair.reason for pair in memory.pairs] == [words, None]
    assert (memory.saving_mib, memory.time_price_pct, memory.after.runs) == (1000, pytest.approx(10), 1)


def test_on_a_cpu_resident_memory_is_compared_and_no_vram_claimed() -> None:
    memory = made((a_run(900, cuda=False), a_run(600, cuda=False))).vram_benchmark
    assert (memory.metric, memory.saving_mib) == ("peak_rss_mib", 300)
    assert memory.vram_reason == "the runs used no GPU: their resident memory is compared instead"


def test_a_peak_that_was_not_measured_gives_no_saving() -> None:
    """The time price stands by itself."""
    unknown = a_run().model_copy(update={"repeats": [make_repeats(cuda=False)[1]]})
    memory = made((a_run(), unknown)).vram_benchmark
    assert (memory.saving_mib, memory.score) == (None, None)
    assert memory.reason == "peak_process_mib was not measured on both sides"
    assert memory.time_price_pct is not None


def test_the_worst_run_of_the_asked_recipe_stands_for_the_suite() -> None:
    """One of its runs broke: the suite is broken, and names the others beside it."""
    broken = make_run_record(cuda=True, error=OUT_OF_MEMORY, run_id="broken")
    suite = made((a_run(), a_run()), (a_run(), broken))
    assert (suite.run_id, suite.verdict, suite.command) == ("broken", RunState.BROKEN, "wan22 suite")


def test_without_a_run_of_the_asked_recipe_there_is_no_suite() -> None:
    assert a_suite((a_run(), None)) is None


def test_loads_are_told_apart_by_the_label_of_their_run() -> None:
    """What nobody saw is not called cold, and a warm run is no cold one."""
    cold = a_run(labels=make_labels(cuda=True, page_cache="cold"))
    warm = a_run(labels=make_labels(cuda=True, page_cache="warm"))
    seen = made((a_run(), warm), (a_run(), warm), cold=cold).load
    assert (seen.cold_s.value, seen.warm_s.value) == (3.0, 3.0)
    assert seen.warm_s.source == "load_s of 2 warm runs"
    unseen = made((a_run(), a_run()), cold=warm).load
    assert (unseen.cold_s.reason, unseen.warm_s.reason) == (
        "the state of the page cache was warm",
        "the state of the page cache was unknown",
    )


def test_the_document_follows_the_published_schema_and_is_read_back(tmp_path: Path) -> None:
    """It has a run's keys and the suite's own; both reports show every run."""
    suite = made((make_run_record(cuda=True, error=OUT_OF_MEMORY), a_run(6000)), (a_run(), a_run(6000)))
    document = run_document(suite)
    jsonschema.validate(document, suite_schema())
    assert set(run_document(a_run())) < set(document)
    (tmp_path / "suite.json").write_text(suite.model_dump_json())
    assert load_suite(tmp_path) == suite
    for text in (suite_text(suite), suite_markdown(suite)):
        assert "20 GiB were asked for." in text
        assert text.count("before, pair") == 2
