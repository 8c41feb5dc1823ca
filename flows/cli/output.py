"""What the commands print, and how they end: one JSON document or text, sentences instead of tracebacks."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from wan22core.errors import Wan22Error
from wan22core.settings import Settings

_INTERRUPTED = 130
_BROKE = 4
_INPUT = 2
_CLEAN_UP_S = 5.0


_interrupted_next = ["Run it again."]
_forced_ends: list[threading.Timer] = []


def say_after_interrupt(next_action: str) -> None:
    """What to do next, should the command be interrupted from now on."""
    _interrupted_next[0] = next_action


def interrupt_is_handled() -> None:
    """From here the command ends by itself, with its own document, however long it takes to keep and print it."""
    while _forced_ends:
        _forced_ends.pop().cancel()


def run_guarded(command: click.Group) -> int:
    """Runs the command line; returns the exit code."""
    as_json = "--json" in sys.argv
    _end_soon_after_ctrl_c(as_json)
    try:
        return int(command.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        usage = f"See {context.command_path} --help." if context is not None else "See wan22 --help."
        return _fail(as_json, _INPUT, "USAGE", error.format_message(), usage, None)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(as_json)
    except Wan22Error as error:
        return _fail(as_json, error.exit_code, error.code, error.message, error.next_action, error.details.get("log"))
    except Exception as error:  # noqa: BLE001 - the end of the program: the traceback goes to a file, the user gets a sentence
        log = _keep_traceback()
        return _fail(
            as_json, _BROKE, "UNEXPECTED", f"{type(error).__name__}: {error}", "Please report this with the log.", log
        )


def _end_soon_after_ctrl_c(as_json: bool) -> None:
    """Ctrl-C raises as always; where a library swallows it, or its clean-up waits for a server, we end all the same.

    What we started dies with this process.
    """

    def force() -> None:
        _interrupted(as_json)
        sys.stdout.flush()
        os._exit(_INTERRUPTED)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(_CLEAN_UP_S, force)
        timer.daemon = True
        timer.start()
        _forced_ends.append(timer)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _interrupted(as_json: bool) -> int:
    interrupt_is_handled()
    what = "Interrupted; the worker was ended."
    return _fail(as_json, _INTERRUPTED, "INTERRUPTED", what, _interrupted_next[0], None)


def _fail(as_json: bool, exit_code: int, code: str, message: str, next_action: str, log: str | None) -> int:
    if as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message, "next": next_action, "log": log}}))
    click.echo(f"wan22: {message}\n       {next_action}", err=True)
    if log is not None:
        click.echo(f"       Log: {log}", err=True)
    return exit_code


def _keep_traceback() -> str | None:
    import traceback

    path = Settings().logs_path / f"error-{time.strftime('%Y%m%dT%H%M%S')}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        click.echo(traceback.format_exc(), err=True)
        return None
    return str(path)


def show(document: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """The document on stdout, or its text."""
    click.echo(json.dumps(document, ensure_ascii=False) if as_json else text())


def quiet_logs() -> None:
    """Prefect's records go to its API, not to the terminal: only what wan22 itself warns of is shown there."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: record.name.startswith("wan22core") and record.levelno >= logging.WARNING)


def run_folder_of(run_id: str, settings: Settings) -> Path:
    """The folder of a run by its id, its beginning, or its path."""
    from wan22core.errors import UnknownNameError, UserInputError

    if not run_id.strip():
        raise UserInputError("The run's id is empty.", next_action="See wan22 history list.")
    if (Path(run_id) / "run.json").is_file():
        return Path(run_id)
    found = sorted(path.parent for path in settings.runs_path.glob(f"{_literal(run_id)}*/run.json"))
    exact = [path for path in found if path.name == run_id]
    if len(chosen := exact or found) != 1:
        raise UnknownNameError(
            f"{len(chosen) or 'No'} runs in {settings.runs_path} begin with {run_id!r}.",
            next_action="See wan22 history list, or give the run's folder.",
        )
    return chosen[0]


def _literal(text: str) -> str:
    """No wildcard of a pattern, no way out of the folder."""
    return "".join(character for character in text if character.isalnum() or character in "-_")
