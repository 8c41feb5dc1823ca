"""The ``wan22`` command's table of groups; nothing heavy is imported to show the help."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from wan22core import __version__

_COMMANDS = {
    "benchmark": ("flows.cli.benchmark:benchmark", "Measure one recipe on one workload, judge it, report it."),
    "gate": ("flows.cli.benchmark:gate", "The same as a check before a deployment; the verdict is the exit code."),
    "hardware": ("flows.cli.hardware:hardware", "What this machine has, each figure with its source."),
    "history": ("flows.cli.history:history", "The runs so far."),
    "plan": ("flows.cli.plan:plan", "Predict memory and time on a card, before anything is run."),
    "report": ("flows.cli.report:report", "Show the report of a run again."),
    "similarity": ("flows.cli.similarity:similarity", "How far the videos of two runs of one seed lie apart."),
    "suite": ("flows.cli.suite:suite", "Loads, videos and memory of a recipe beside another one, in one report."),
    "validate": ("flows.cli.validate:validate", "Check that the system does on this machine what it should."),
    "weights": ("flows.cli.weights:weights", "Make, check, list and remove checkpoints."),
}


class _Lazy(click.Group):
    """Knows the commands' names and help; imports the one that is called."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), name)
        return found

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_Lazy,
    epilog="Example: wan22 benchmark --model tiny --workload smoke",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="wan22")
def cli() -> None:
    """Measures the Wan2.2 TI2V-5B video model on your own GPU, judges the records and keeps the history."""


def main() -> Any:
    """The entry point: every failure ends in sentences and an exit code."""
    from flows.cli.output import run_guarded

    sys.exit(run_guarded(cli))
