"""``wan22 benchmark`` and ``wan22 gate``: the same run; only the gate turns the verdict into the exit code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from flows.cli.output import quiet_logs, run_folder_of, say_after_interrupt, show
from flows.cli.progress import progress_line
from flows.request import BenchmarkRequest, request_from
from wan22core.errors import OrchestratorError, UserInputError
from wan22core.files import require_writable_folder, write_text
from wan22core.quality.policy import gate_exit_code
from wan22core.recipes import RECIPES
from wan22core.records import RunRecord, RunState
from wan22core.recovery.journal import is_unfinished
from wan22core.report.document import load_run, run_document
from wan22core.report.junit import to_junit
from wan22core.report.text import to_text
from wan22core.session.folder import new_run_id, unfinished_run
from wan22core.settings import Settings, export
from wan22core.specs import WORKLOADS

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_CODES = {RunState.BROKEN: 4, RunState.INTEGRITY_FAILED: 5}

_OPTIONS = (
    click.option("--model", help="tiny, ti2v-5b, a checkpoint folder, or a hub id.  [default: tiny]"),
    click.option("--workload", help=f"One of {', '.join(WORKLOADS)}.  [default: smoke]"),
    click.option("--recipe", help=f"One of {', '.join(RECIPES)}.  [default: reference; low_8g for suite]"),
    click.option("--text-encoder", help="bf16, fp16, int8 or fp8, where it is not the recipe's."),
    click.option("--repeats", type=int, help="Measured generations.  [default: 3]"),
    click.option("--warmups", type=int, help="Generations before them, kept apart.  [default: 1]"),
    click.option("--device", help="auto, cpu or cuda:N.  [default: auto]"),
    click.option("--vram-limit-mib", type=int, help="Emulated ceiling on the process's device memory."),
    click.option("--width", type=int, help="Pixels, a multiple of 32."),
    click.option("--height", type=int, help="Pixels, a multiple of 32."),
    click.option("--frames", type=int, help="4k+1 frames; not together with --duration."),
    click.option("--duration", "duration_s", type=float, help="Seconds of video."),
    click.option("--fps", type=int, help="Frames per second."),
    click.option("--steps", type=int, help="Denoising steps."),
    click.option("--guidance", type=float, help="Classifier-free guidance."),
    click.option("--prompt", help="What to show."),
    click.option("--negative-prompt", help="What to avoid."),
    click.option("--image", type=click.Path(path_type=Path), help="Start from this image."),
    click.option("--seed", type=int, help="Seed of the start noise."),
    click.option("--host-settings", help="stock leaves the host as it is, auto sets it up.  [default: stock]"),
    click.option("--keep-frames", is_flag=True, default=None, help="Keep the frames too, for wan22 similarity."),
    click.option("--engine", help="Another system under test, by its name or as module:Class."),
    click.option("--spec", "spec_file", type=click.Path(path_type=Path), help="A complete spec as JSON."),
    click.option("--targets", "targets_file", type=click.Path(path_type=Path), help="Targets as JSON."),
    click.option("--runs-dir", type=click.Path(path_type=Path), help="Where the run's folder goes."),
    click.option("--json", "as_json", is_flag=True, help="Print the run's document as JSON."),
)


_resume_option = click.option("--resume", metavar="RUN_ID", help="Go on with a run that was cut off.")


def run_options(command: Command) -> Command:
    """The options that say what is measured: of every command that measures."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(epilog="Example: wan22 benchmark --model ti2v-5b --workload 2s-720p --repeats 3")
@run_options
@_resume_option
@click.pass_context
def benchmark(context: click.Context, /, runs_dir: Path | None, as_json: bool, **asked: Any) -> None:
    """Measure one recipe on one workload, judge the records and write the report.

    Exits 0 when the run completed and its records are believable, 4 when it broke, 5 when they are not. Whether the
    targets are met is in the output; wan22 gate makes it the exit code.
    """
    record = _measure("benchmark", runs_dir, asked)
    show(run_document(record), as_json=as_json, text=lambda: to_text(record))
    context.exit(EXIT_CODES.get(record.verdict, 0))


@click.command(epilog="Example: wan22 gate --model ti2v-5b --workload 2s-720p --junit gate.xml")
@run_options
@_resume_option
@click.option("--run", "run_id", help="Judge this run instead of making one.")
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help="How to judge, as JSON: docs/gate.md.")
@click.option("--baseline", help="Compare with the run of this name: wan22 history baseline.")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write the verdicts as JUnit XML.")
@click.pass_context
def gate(
    context: click.Context,
    /,
    runs_dir: Path | None,
    as_json: bool,
    run_id: str | None,
    policy_file: Path | None,
    baseline: str | None,
    junit_file: Path | None,
    **asked: Any,
) -> None:
    """Judge a run for a deployment.

    Exits 0 pass, 1 a critical target is missed, 3 one is not measured, 4 the run broke, 5 integrity failed.
    """
    from wan22core.history.store import read_baseline
    from wan22core.quality.gate import GatePolicy, for_gate, load_policy

    if runs_dir is not None:
        export(runs_dir=runs_dir)
    if run_id is not None:
        _refuse_beside("--run judges a run that is there", asked)
    policy = load_policy(policy_file) if policy_file is not None else GatePolicy()
    beside = read_baseline(Settings().history_url, baseline) if baseline is not None else None
    judging = {"policy": policy, "baseline": baseline}
    measured = (
        load_run(run_folder_of(run_id, Settings()))
        if run_id is not None
        else _measure("gate", runs_dir, asked, judging)
    )
    record = for_gate(measured, policy, beside, datetime.now(UTC).date())
    exit_code = gate_exit_code(record.verdict)
    if junit_file is not None:
        write_text(junit_file, to_junit(record))
    show({**run_document(record), "exit_code": exit_code}, as_json=as_json, text=lambda: to_text(record))
    context.exit(exit_code)


def _refuse_beside(what: str, asked: dict[str, Any]) -> None:
    """A run that is there has its own spec: nothing about it can be asked for now."""
    given = ", ".join(sorted(name for name, value in asked.items() if value is not None))
    if given:
        raise UserInputError(f"{what}, and {given} was given beside it.", next_action="Leave it out.")


def _measure(
    name: str, runs_dir: Path | None, asked: dict[str, Any], judging: dict[str, Any] | None = None
) -> RunRecord:
    """Runs the flow against the configured Prefect API, or one of our own; returns what it left."""
    if runs_dir is not None:
        export(runs_dir=runs_dir.absolute())
    settings = Settings()
    resume = asked.pop("resume")
    if resume is not None:
        _refuse_beside("--resume goes on with a run as it was asked for", asked)
        unfinished_run(settings.runs_path, resume)
    request: BenchmarkRequest = request_from(asked)
    request.to_spec()
    require_writable_folder(settings.runs_path)
    run_id = resume or new_run_id()
    again = f"wan22 {name} --resume {run_id}" + (f" --runs-dir {settings.runs_path}" if runs_dir is not None else "")
    with progress_line() as on_progress:
        from flows.local_server import prefect_api
        from flows.progress import listening

        with prefect_api(settings), listening(on_progress):
            from flows import benchmark as flows

            quiet_logs()
            say_after_interrupt(f"Run it again; or, when a stage had ended, go on with it: {again}")
            state = getattr(flows, name)(request, run_id, resume, **judging or {}, return_state=True)
    folder = settings.runs_path / run_id
    record = load_run(folder) if (folder / "run.json").exists() else None
    if record is None or state.name not in {each.value for each in RunState}:  # it failed, crashed or was cancelled
        _raise_why(state, folder, again)
    if (kept := settings.outbox_path / f"{run_id}.json").exists():
        click.echo(f"wan22: the history can't be written now; the run waits in {kept} for the next one.", err=True)
    assert record is not None
    return record


def _raise_why(state: Any, folder: Path, again: str) -> None:
    """What ended a flow before its end, and how to go on."""
    if is_unfinished(folder):
        click.echo(f"wan22: what was measured is kept, and goes on with: {again}", err=True)
    try:
        state.result(raise_on_failure=True)
    except TimeoutError as error:
        raise OrchestratorError(
            f"A task of this run was stuck, and Prefect ended it: {error}.",
            next_action=f"Look at {folder / 'worker.log'}, then run again.",
        ) from error
