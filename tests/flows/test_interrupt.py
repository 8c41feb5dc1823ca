"""Ctrl-C ends a command with one document, whether it raises, is handled, or is swallowed by a library."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

_COMMAND = """
import sys
import threading
import click
from flows.cli import output

@click.group()
def cli() -> None:
    pass

@cli.command()
@click.option("--json", "as_json", is_flag=True)
def {how}(as_json: bool) -> None:
    try:
        click.echo("ready", err=True)
        threading.Event().wait(60)
    except KeyboardInterrupt:
        {then}
    output.show({{"kept": True}}, as_json=as_json, text=str)
    sys.exit(130)

output._CLEAN_UP_S = 0.3
sys.exit(output.run_guarded(cli))
"""
_LONGER = "threading.Event().wait(1.5)"  # than the clean-up may take


@pytest.mark.parametrize(
    ("how", "then", "expected"),
    [
        ("raises", "raise", "error"),
        ("handles", f"output.interrupt_is_handled(); {_LONGER}", "kept"),
        ("swallows", f"{_LONGER}; {_LONGER}", "error"),
    ],
)
def test_an_interrupt_is_answered_once(how: str, then: str, expected: str) -> None:
    """Exit 130 and one document; the command's own where it has said that it ends by itself, however long it takes."""
    script = _COMMAND.format(how=how, then=then)
    command = [sys.executable, "-c", script, how, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert list(json.loads(output)) == [expected]
