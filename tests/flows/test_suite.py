"""``wan22 suite`` and ``wan22 similarity`` as people use them: real processes and model, a real Prefect server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flows.request import BenchmarkRequest, SuiteRequest, request_from
from tests.flows.shell import Shell
from tests.worker.test_worker import faulty_spec
from wan22core.recipes import recipe
from wan22core.report.document import SUITE_SCHEMA_FILE, suite_schema
from wan22core.specs import BenchmarkSpec, Precision, Weights, Workload

LONG = pytest.mark.timeout(300)
pytestmark = pytest.mark.slow  # tests/session/test_suite.py has what a suite makes of its runs, without running any


def spec_with(folder: Path, spec: BenchmarkSpec, checkpoint: Path, **recipe_changes: Any) -> Path:
    """The spec's file, with a recipe of another name and values."""
    changed = recipe("reference").model_copy(update={"name": "other", **recipe_changes})
    spec = spec.model_copy(update={"recipe": changed, "weights": Weights(model=str(checkpoint))})
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    return path


@pytest.fixture(scope="module")
def suite(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, server_url: str
) -> tuple[Shell, dict[str, Any]]:
    """The real model with its VAE in bf16 beside ``reference``, one pair, shared by the tests that read it."""
    folder = tmp_path_factory.mktemp("suite")
    shell = Shell(folder / "data", server_url)
    workload = Workload(name="small", width=64, height=64, frames=5, steps=2)
    # one thread: two of them wait for each other where another process has a core
    spec = BenchmarkSpec(workload=workload, recipe=recipe("reference"), repeats=1, warmups=0, device="cpu", threads=1)
    path = spec_with(folder, spec, tiny_checkpoint, vae_precision=Precision.BF16)
    done = shell.run("suite", "--spec", str(path), "--pairs", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert shell.left_after(1.0) == []
    return shell, json.loads(done.stdout)


@LONG
def test_a_suite_is_one_document(suite: tuple[Shell, dict[str, Any]]) -> None:
    """A run's keys and what it was held against; every run is a step of it, in a process of its own."""
    shell, document = suite
    jsonschema.validate(document, suite_schema())
    steps = [(step["role"], step["recipe"], step["run"]["verdict"]) for step in document["steps"]]
    assert steps == [
        ("cold_load", "other", "NotMeasured"),
        ("before", "reference", "NotMeasured"),
        ("after", "other", "NotMeasured"),
    ]
    assert len({step["run"]["run_id"] for step in document["steps"]}) == 3
    assert (document["labels"]["recipe"], document["integrity"]["verdict"]) == ("other", "pass")
    assert json.loads(Path(document["files"]["suite"]).read_text())["suite_id"] == document["suite_id"]
    assert "## Memory and time" in (Path(document["suite_dir"]) / "suite.md").read_text()
    assert len(json.loads(shell.run("history", "list", "--json").stdout)["runs"]) == 3


@LONG
def test_a_suite_on_a_cpu_compares_resident_memory(suite: tuple[Shell, dict[str, Any]]) -> None:
    """Saving, price and score follow from the two runs in it; no VRAM is claimed."""
    _, document = suite
    memory = document["vram_benchmark"]
    before, after = (
        max(row["peak_rss_mib"] for row in step["run"]["repeats"] if row["kind"] == "measured")
        for step in document["steps"][1:]
    )
    assert (memory["metric"], memory["reason"]) == ("peak_rss_mib", None)
    assert "no GPU" in memory["vram_reason"]
    assert memory["saving_mib"] == pytest.approx(before - after)
    assert memory["saving_pct"] == pytest.approx(100 * (before - after) / before)
    assert memory["score"] == pytest.approx(0.7 * memory["saving_pct"] - 0.3 * memory["time_price_pct"])
    assert memory["pairs"][0]["reason"] is None


@LONG
def test_a_suite_compares_the_videos_of_its_first_pair(suite: tuple[Shell, dict[str, Any]]) -> None:
    """The VAE comes after the latents, which are equal to the bit; its rounding shows in the frames, above 40 dB."""
    _, document = suite
    found = document["similarity"]
    assert (found["method"], found["latents"]["bit_equal"]) == ("lossless", True)
    assert found["frames"]["frames"] == 5
    assert 0 < found["frames"]["mean_squared_error"] < 6.5  # 40 dB
    assert all(check["holds"] for check in found["checks"])
    assert (found["verdict"], "random" in found["reason"]) == ("not_measured", True)


@LONG
def test_similarity_reads_two_runs(suite: tuple[Shell, dict[str, Any]]) -> None:
    """The same numbers again; the cold run kept no frames, and that is said."""
    shell, document = suite
    cold, before, after = (step["run"]["run_id"] for step in document["steps"])
    done = shell.run("similarity", before, after, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, document["similarity"]), done.stderr
    text = shell.run("similarity", before, cold)
    assert (text.returncode, "equal to the bit" in text.stdout) == (0, True), text.stderr
    assert f"not measured: no frames were kept by {cold}" in text.stdout


@LONG
def test_videos_that_should_differ_are_not_compared(
    suite: tuple[Shell, dict[str, Any]], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """Another seed and prompt: exit 2, each named with both values."""
    shell, document = suite
    spec = faulty_spec("another prompt", repeats=1, warmups=0)
    spec = spec.model_copy(update={"workload": spec.workload.model_copy(update={"seed": 7})})
    path = spec_with(tmp_path, spec, tiny_checkpoint)
    other = json.loads(shell.run("benchmark", "--spec", str(path), "--json").stdout)["run_id"]
    done = shell.run("similarity", document["run_id"], other)
    assert (done.returncode, "seed is 42 in A and 7 in B" in done.stderr) == (2, True), done.stderr
    assert "prompt is" in done.stderr and "another prompt in B" in done.stderr


@LONG
def test_a_recipe_that_does_not_fit_is_a_result(tmp_path: Path, tiny_checkpoint: Path, server_url: str) -> None:
    """The run before is out of memory each time: the suite completes, keeps it, and claims no saving."""
    shell = Shell(tmp_path / "data", server_url)
    engine = "tests.flows.suite_engines:ReferenceIsTooLarge"
    path = spec_with(tmp_path, faulty_spec(repeats=1, warmups=0, engine=engine), tiny_checkpoint)
    done = shell.run("suite", "--spec", str(path), "--pairs", "1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    memory = document["vram_benchmark"]
    assert (memory["before"]["error_code"], memory["saving_mib"]) == ("CUDA_OUT_OF_MEMORY", None)
    assert [step["run"]["verdict"] for step in document["steps"]] == ["NotMeasured", "Broken", "NotMeasured"]
    assert "reference broke (CUDA_OUT_OF_MEMORY)" in document["suite_summary"]


@LONG
def test_weights_that_are_not_there_end_a_suite_at_once(tmp_path: Path, server_url: str) -> None:
    """One sentence and exit 2: no run is tried."""
    shell = Shell(tmp_path / "data", server_url)
    done = shell.run("suite", "--model", "no/such-model")
    assert (done.returncode, "neither a folder nor a repository" in done.stderr) == (2, True), done.stderr
    assert not list((shell.data / "runs").glob("*/run.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["suite", "--before", "referense"], "Did you mean 'reference'?"),
        (["suite", "--pairs", "0"], "0 is not in the range"),
        (["suite", "--resume", "x"], "No such option"),
        (["similarity", "19990101", "19990102"], "begin with '19990101'"),
    ],
)
def test_bad_input_gets_a_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = Shell(tmp_path / "data").run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_request_says_the_command_that_asks_for_the_same() -> None:
    """A flag has no value after it."""
    benchmark = request_from({"steps": 2, "keep_frames": True, "prompt": None})
    assert benchmark.command() == "wan22 benchmark --steps 2 --keep-frames"
    assert BenchmarkRequest(**benchmark.model_dump()).to_spec().keep_frames
    suite = SuiteRequest.model_validate({"benchmark": benchmark, "pairs": 3})
    assert suite.command() == "wan22 suite --before reference --pairs 3 --steps 2 --keep-frames"
    assert SuiteRequest().command() == "wan22 suite --before reference --pairs 2 --recipe low_8g"


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(SUITE_SCHEMA_FILE.read_text()) == suite_schema(), "run: python -m wan22core.report.document"
