"""The plan's arrows: what may import what, and what a fast start must not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "diffusers", "prefect", "great_expectations", "pandas")


def loaded_heavy_modules(statement: str) -> str:
    """What of ``HEAVY`` a fresh interpreter has loaded after ``statement``; the last line it prints."""
    program = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules], sep=',')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_probe_sees_a_heavy_import() -> None:
    """The test below can fail."""
    assert loaded_heavy_modules("import pandas") == "pandas"


def test_importing_the_core_loads_nothing_heavy() -> None:
    assert loaded_heavy_modules("import wan22core") == ""


def test_every_import_follows_the_plan() -> None:
    """import-linter's contracts in pyproject.toml hold."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_environment_is_touched_in_one_file() -> None:
    """ruff's ban on os.environ is switched off for settings.py, the tests and the set-up script only."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID251", "flows", "tasks", "wan22core"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
