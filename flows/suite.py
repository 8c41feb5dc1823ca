"""The comprehensive run as a Prefect flow: loads, videos, memory before and after, one report."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.benchmark import run, state_of
from flows.request import BenchmarkRequest, SuiteRequest
from tasks.suite import compare_videos, empty_page_cache, write_suite
from wan22core.errors import OrchestratorError, Wan22Error, error_classes
from wan22core.recipes import recipe
from wan22core.records import RunError, RunRecord, SuiteRole, SuiteStep
from wan22core.session.folder import new_run_folder, new_run_id
from wan22core.session.suite import PlannedStep, SuiteHeader, assemble_suite, suite_steps
from wan22core.settings import Settings

_DEFAULT = SuiteRequest()


@flow(name="suite")
def suite(request: SuiteRequest = _DEFAULT, suite_id: str | None = None) -> State[Any]:
    """Measures a recipe and the one before it in alternating fresh processes; a run that breaks is part of the report.

    The state is named by the worst verdict of the asked recipe's runs.
    """
    settings, spec = Settings(), request.benchmark.to_spec()
    folder = new_run_folder(settings.runs_path, suite_id or new_run_id())
    not_cold = empty_page_cache(spec, settings, folder.log)
    planned = suite_steps(spec, recipe(request.before.value), request.pairs)
    steps = [_measured(step) for step in planned]
    found, reason = compare_videos(_first(steps, SuiteRole.BEFORE), _first(steps, SuiteRole.AFTER), folder.log)
    record = assemble_suite(SuiteHeader(folder, request.command(), not_cold), steps, found, reason)
    if record is None:
        raise _first_error(steps)
    write_suite(record)
    return state_of(record)


def _measured(step: PlannedStep) -> SuiteStep:
    """One run, whatever becomes of it."""
    known: dict[str, Any] = {"role": step.role, "pair": step.pair, "recipe": step.spec.recipe.name}
    try:
        return SuiteStep(**known, run=run(BenchmarkRequest(spec=step.spec), new_run_id(), None), error=None)
    except Wan22Error as error:
        why = RunError(code=error.code, message=error.message, next=error.next_action, stage=None, log=None)
    except TimeoutError as error:
        stuck = f"A task of this run was stuck, and Prefect ended it: {error}."
        why = RunError(code=OrchestratorError.code, message=stuck, next="Run it alone.", stage=None, log=None)
    return SuiteStep(**known, run=None, error=why)


def _first(steps: list[SuiteStep], role: SuiteRole) -> RunRecord | None:
    return next(step.run for step in steps if step.role is role)


def _first_error(steps: list[SuiteStep]) -> Wan22Error:
    """Where the asked recipe left no run, what kept it from that."""
    error = next(step.error for step in steps if step.role is not SuiteRole.BEFORE and step.error is not None)
    return error_classes()[error.code](error.message, next_action=error.next)
