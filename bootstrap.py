"""Set wan22 up in .venv and run it: ``python bootstrap.py test|check``. Needs nothing but Python 3.11 or 3.12."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "wan22-installed.sha256"
INPUTS = ("requirements.lock", "pyproject.toml")
SUPPORTED = ((3, 11), (3, 12))
CUDA_WITHOUT_TORCH = """
import json, pynvml, torch
try:
    pynvml.nvmlInit()
    count = pynvml.nvmlDeviceGetCount()
except pynvml.NVMLError:
    count = 0
print(json.dumps({"gpus": count, "cuda": torch.version.cuda, "torch": torch.__version__}))
"""


class SetupError(Exception):
    """A sentence for the person at the terminal."""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: python bootstrap.py {'|'.join(COMMANDS)} [options of the command]", file=sys.stderr)
        return 2
    try:
        if (other := other_python(sys.version_info[:2])) is not None:
            return subprocess.call([other, str(ROOT / "bootstrap.py"), *arguments])
        install()
        return COMMANDS[arguments[0]](arguments[1:])
    except SetupError as error:
        print(f"wan22: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("wan22: interrupted; run the same command to go on.", file=sys.stderr)
        return 130


def other_python(version: tuple[int, int]) -> str | None:
    """A suitable interpreter when ``version`` is not one, None when it is."""
    if version in SUPPORTED:
        return None
    for major, minor in SUPPORTED:
        if (found := shutil.which(f"python{major}.{minor}")) is not None:
            return found
    raise SetupError("Python 3.11 or 3.12 is needed and neither is on the PATH. Install one and run this again.")


def fingerprint(root: Path) -> str:
    """Changes when the lock or the project's metadata change, or another interpreter is used."""
    digest = hashlib.sha256(repr(sys.version_info[:3]).encode())
    for name in INPUTS:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def install() -> None:
    """Makes the virtual environment and installs the lock, only when something changed since it was last complete."""
    wanted = fingerprint(ROOT)
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    began = time.monotonic()
    STAMP.unlink(missing_ok=True)
    if not python().exists():
        say(f"making the virtual environment {VENV}")
        run([sys.executable, "-m", "venv", str(VENV)], "The virtual environment could not be made")
    announce_download()
    say("installing the locked packages (a few minutes the first time)")
    pip("install", "--requirement", str(ROOT / "requirements.lock"))
    pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    temporary = STAMP.with_suffix(".new")
    temporary.write_text(wanted)
    temporary.replace(STAMP)
    say(f"installed in {time.monotonic() - began:.0f} s")
    warn_of_cpu_torch()


def announce_download() -> None:
    """Says before a long download what it is; a file at hand is not announced."""
    torch = next(line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("torch=="))
    report = subprocess.run(
        [str(python()), "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", "--report", "-", torch],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        items = json.loads(report.stdout)["install"]
    except (json.JSONDecodeError, KeyError):
        return  # the installation that follows meets the same trouble and explains it
    if any(not item["download_info"]["url"].startswith("file:") for item in items):
        say(f"{torch} and its CUDA libraries will be downloaded: about 3 GB (less where a CPU build is served)")


def warn_of_cpu_torch() -> None:
    """Says so where NVML sees a GPU that the installed torch can't use."""
    answer = subprocess.run([str(python()), "-c", CUDA_WITHOUT_TORCH], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise SetupError(f"torch can't be imported: {answer.stderr.strip().splitlines()[-1]}")
    facts = json.loads(answer.stdout)
    if facts["gpus"] and facts["cuda"] is None:
        say(
            f"NVML sees {facts['gpus']} GPU(s), but torch {facts['torch']} was built without CUDA. "
            f"For GPU runs install the CUDA build:\n  {python()} -m pip install --force-reinstall --no-deps "
            f"torch=={facts['torch'].split('+')[0]} --index-url <the CUDA index that pytorch.org names for your driver>"
        )


def test(arguments: list[str]) -> int:
    return subprocess.call([str(python()), "-m", "pytest", *arguments], cwd=ROOT)


def check(_arguments: list[str]) -> int:
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ):
        say(" ".join(command))
        if code := subprocess.call([str(script(command[0])), *command[1:]], cwd=ROOT):
            return code
    return 0


COMMANDS = {"test": test, "check": check}


def python() -> Path:
    return script("python")


def script(name: str) -> Path:
    return VENV / ("Scripts" if os.name == "nt" else "bin") / (f"{name}.exe" if os.name == "nt" else name)


def pip(*arguments: str) -> None:
    command = [str(python()), "-m", "pip", *arguments[:1], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    run(command, "The packages could not be installed")


def run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(
            f"{what}:\n{(done.stderr or done.stdout).strip()[-2000:]}\n"
            "Check the network and the free disk space, then run the same command again."
        )


def say(text: str) -> None:
    print(f"wan22: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
