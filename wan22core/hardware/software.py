"""What the numbers depend on besides the hardware: system, packages, the commit that runs."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wan22core.records import Reading, SoftwareProfile

_PACKAGES = ("torch", "diffusers", "transformers", "prefect", "great_expectations", "wan22")
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def software_profile() -> SoftwareProfile:
    """This system, and the packages of this environment; nothing is imported for it."""
    return SoftwareProfile(
        host=platform.node(),
        operating_system=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
        commit=commit_of(Path(__file__).resolve().parents[2]),
    )


def _version(name: str) -> Reading[str]:
    try:
        return Reading[str](value=version(name), source="package metadata")
    except PackageNotFoundError:
        return Reading[str].missing("package metadata", "not installed")


def commit_of(checkout: Path) -> Reading[str]:
    """The commit that a checkout stands at, read from git's own files; changes not committed are not seen."""
    try:
        return _commit_of(checkout)
    except (OSError, UnicodeDecodeError) as error:
        return Reading[str].missing("git", f"git's files can't be read: {error}")


def _commit_of(checkout: Path) -> Reading[str]:
    git = checkout / ".git"
    if git.is_file():  # a worktree points to its folder
        git = (checkout / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
    if not git.is_dir():
        return Reading[str].missing("git", "wan22 does not run from a git checkout")
    head = _first_line(git / "HEAD")
    common = (git / _first_line(git / "commondir")).resolve()  # a worktree's branches stand in the main folder
    name = head.removeprefix("ref:").strip()
    found = name if head == name else _first_line(common / name) or _packed(common, name)
    if _HASH.fullmatch(found):
        return Reading[str](value=found, source="git")
    return Reading[str].missing("git", f"{name or 'HEAD'} names no commit")


def _packed(git: Path, name: str) -> str:
    file = git / "packed-refs"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")


def _first_line(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].strip() if file.is_file() else ""
