"""The set-up script, driven as a person would: by real processes, in folders of its own, without a network."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bootstrap

ROOT = Path(__file__).resolve().parents[1]
posix_only = pytest.mark.skipif(os.name == "nt", reason="drives stand-in programs that are POSIX scripts")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what bootstrap.py reads, and no virtual environment."""
    for name in ("bootstrap.py", *bootstrap.INPUTS):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def pretend_installed(checkout: Path, program: str, script: str) -> None:
    """Marks the virtual environment complete; its python is this one, and ``program`` runs ``script``."""
    folder = checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    (folder / program).write_text(f"#!{sys.executable}\n{script}")
    (folder / program).chmod(0o755)
    (checkout / ".venv" / bootstrap.STAMP.name).write_text(bootstrap.fingerprint(checkout))


def run_bootstrap(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "bootstrap.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("arguments", [(), ("instal",)])
def test_an_unknown_command_is_answered_with_the_known_ones(checkout: Path, arguments: tuple[str, ...]) -> None:
    done = run_bootstrap(checkout, *arguments)
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "usage: python bootstrap.py bench|test|check [options of the command]",
    )
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("name", bootstrap.INPUTS)
def test_the_fingerprint_follows_the_lock_and_the_metadata(checkout: Path, name: str) -> None:
    before = bootstrap.fingerprint(checkout)
    assert bootstrap.fingerprint(checkout) == before
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    assert bootstrap.fingerprint(checkout) != before


@posix_only
def test_a_complete_installation_is_used_as_it_is(checkout: Path) -> None:
    """``check`` runs the installed tools, stops at the first that fails with its exit code, and installs nothing."""
    pretend_installed(checkout, "ruff", "import sys; print(*sys.argv[1:]); sys.exit(5)")
    done = run_bootstrap(checkout, "check")
    assert (done.returncode, done.stdout, done.stderr) == (5, "check .\n", "wan22: ruff check .\n")


@posix_only
def test_a_changed_lock_is_installed_again_and_a_failure_leaves_no_stamp(checkout: Path) -> None:
    """A lock that can't be installed ends in a sentence with the next action; the run after it tries again."""
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / bootstrap.STAMP.name).write_text(bootstrap.fingerprint(checkout))
    (checkout / "requirements.lock").write_text("torch==0.0.0\n")
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(checkout / "bootstrap.py"), "check"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
        )
        assert done.returncode == 4
        assert "torch==0.0.0 is not at hand and will be downloaded" in done.stderr
        assert "The packages could not be installed" in done.stderr
        assert done.stderr.rstrip().endswith("then run the same command again.")
        assert "Traceback" not in done.stderr
        assert not (checkout / ".venv" / bootstrap.STAMP.name).exists()


@posix_only
def test_an_interrupt_reaches_the_command_that_runs(checkout: Path) -> None:
    """The command itself gets the signal, so it can stop its children and choose the exit code."""
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('stopped', flush=True), sys.exit(130)))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    pretend_installed(checkout, "pytest", "")
    (checkout / "pytest.py").write_text(script)  # what -m pytest finds first
    command = [sys.executable, str(checkout / "bootstrap.py"), "test"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(timeout=30) == 130


@posix_only
def test_no_suitable_python_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim of a version manager that is on the PATH and starts nothing is not taken for a Python."""
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        bootstrap.SetupError, match=r"^Python 3\.11 or 3\.12 is needed, this is 3\.\d+\.\d+ and neither"
    ):
        bootstrap.other_python()


@posix_only
def test_a_suitable_python_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    major, minor = sys.version_info[:2]
    found = tmp_path / f"python{major}.{minor}"
    found.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bootstrap.other_python() == [str(found)]


def test_the_lock_names_every_package_that_is_needed() -> None:
    """Directly or through another package, for use, tests and build; torch's own CUDA libraries are pinned by torch."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = metadata["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["postgres"], *metadata["build-system"]["requires"]]
    locked = {
        canonicalize_name(re.split("==", line)[0]) for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    assert sorted(needed_packages([*wanted, "editables"]) - locked) == []


def needed_packages(wanted: list[str]) -> set[str]:
    """The names that ``wanted`` needs on this platform, followed through the metadata of what is installed."""
    seen: set[tuple[str, str]] = set()
    open_ends = [(Requirement(text), "") for text in wanted]
    while open_ends:
        requirement, extra_of_parent = open_ends.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra_of_parent}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(("nvidia-", "cuda-", "triton")) and name != "nvidia-ml-py":
            continue
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            open_ends += [(Requirement(text), extra) for text in requires(name)]
    return {name for name, _ in seen}


def requires(name: str) -> list[str]:
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []
