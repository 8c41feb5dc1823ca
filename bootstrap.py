"""Set wan22 up in .venv and run it: ``python bootstrap.py bench|test|check``. Needs nothing but Python 3.11 or 3.12."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "wan22-installed.sha256"
INPUTS = ("requirements.lock", "pyproject.toml")
SUPPORTED = ((3, 11), (3, 12))
PRINT_VERSION = "import sys; print(*sys.version_info[:2])"
PRINT_GPU_FACTS = """
import json, pynvml, torch
try:
    pynvml.nvmlInit()
    gpus = pynvml.nvmlDeviceGetCount()
except pynvml.NVMLError:
    gpus = 0
print(json.dumps({"gpus": gpus, "cuda": torch.version.cuda, "torch": torch.__version__}))
"""


PRINT_GPU_COUNT = """
import pynvml
try:
    pynvml.nvmlInit()
    print(pynvml.nvmlDeviceGetCount())
except pynvml.NVMLError:
    print(0)
"""


PRINT_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
USED_MODELS = "umt5|t5|auto|clip|llama|siglip|dinov2_with_registers|encoder_decoder|vit_mae"
OTHER_MODELS = rf"/transformers/models/(?!({USED_MODELS})/|__init__)|/diffusers/pipelines/(?!wan/|\w+\.py)"
LEFT_OUT = rf"site-packages.*(/tests?/|{OTHER_MODELS})"
"""Sources that the main job never imports: the packages' own tests, and other models. A third of all."""


class SetupError(Exception):
    """A sentence for the person at the terminal."""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: python bootstrap.py {'|'.join(COMMANDS)} [options of the command]", file=sys.stderr)
        return 2
    try:
        if sys.version_info[:2] not in SUPPORTED:
            hand_over([*other_python(), str(ROOT / "bootstrap.py"), *arguments])
        install()
        return COMMANDS[arguments[0]](arguments[1:])
    except SetupError as error:
        say(str(error))
        return 4
    except OSError as error:
        say(f"{error}. Check permissions and the free disk space, then run the same command again.")
        return 4
    except KeyboardInterrupt:
        say("interrupted; run the same command to go on.")
        return 130


def other_python() -> list[str]:
    """The command of a suitable interpreter. Asks each candidate: a version manager's shim can be there and not run."""
    for major, minor in SUPPORTED:
        candidates = [[f"python{major}.{minor}"]] + ([["py", f"-{major}.{minor}"]] if os.name == "nt" else [])
        for name, *options in candidates:
            if (found := shutil.which(name)) is None:
                continue
            answer = subprocess.run([found, *options, "-c", PRINT_VERSION], capture_output=True, text=True, check=False)
            if answer.stdout.split() == [str(major), str(minor)]:
                return [found, *options]
    raise SetupError(
        f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]} and neither is on the PATH. "
        "Install one and run this again."
    )


def fingerprint(root: Path) -> str:
    """Changes when the lock or the project's metadata change, or another Python is used."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for name in INPUTS:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def is_installed(wanted: str) -> bool:
    """The stamp is written last, so it stands for a complete installation of what ``wanted`` names."""
    return python().exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted


def install() -> None:
    """Makes the virtual environment and installs the lock, only when something changed since it was last complete."""
    wanted = fingerprint(ROOT)
    if is_installed(wanted):
        return
    with one_at_a_time():
        if is_installed(wanted):
            return
        began = time.monotonic()
        STAMP.unlink(missing_ok=True)
        make_venv()
        announce_download()
        say("installing the locked packages (a few minutes the first time)")
        pip("install", "--no-compile", "--requirement", str(ROOT / "requirements.lock"))
        compile_packages()
        pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        warn_of_cpu_torch()
        temporary = STAMP.with_suffix(".new")
        temporary.write_text(wanted, encoding="utf-8")
        temporary.replace(STAMP)
        say(f"installed in {time.monotonic() - began:.0f} s")


def compile_packages() -> None:
    """Byte code by every core: pip takes one, and compiles all. A file that can't be compiled is no fault.

    Not left to the first import: where PYTHONDONTWRITEBYTECODE is set every process would compile everything anew.
    """
    packages = subprocess.check_output([str(python()), "-c", PRINT_PACKAGES], text=True).strip()
    subprocess.run([str(python()), "-m", "compileall", "-qq", "-j", "0", "-x", LEFT_OUT, packages], check=False)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two installations into one folder would break each other: the second waits. Not guarded on Windows (no flock)."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with (ROOT / ".venv.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another bootstrap is installing here; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def make_venv() -> None:
    """Keeps a virtual environment that has a working pip of this Python, makes it anew otherwise."""
    if python().exists():
        pip_answer = subprocess.run([str(python()), "-m", "pip", "--version"], capture_output=True, check=False)
        answer = subprocess.run([str(python()), "-c", PRINT_VERSION], capture_output=True, text=True, check=False)
        if pip_answer.returncode == 0 and answer.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return
    say(f"making the virtual environment {VENV}")
    run([sys.executable, "-m", "venv", "--clear", str(VENV)], "The virtual environment could not be made")


def announce_download() -> None:
    """Says before a long download what it is; a torch that is installed or lies in a local folder is not announced.

    Asked without the index: the pip that comes with Python 3.11 downloads the whole file even for a dry run.
    """
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    local = subprocess.run(
        [str(python()), "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--quiet", torch],
        capture_output=True,
        check=False,
    )
    if local.returncode != 0:
        say(
            f"{torch} is not at hand and will be downloaded: on Linux with its CUDA libraries several GB, "
            "a few hundred MB where the package index serves a CPU build"
        )


def warn_of_cpu_torch() -> None:
    """Says so where NVML sees a GPU that the installed torch can't use."""
    answer = subprocess.run([str(python()), "-c", PRINT_GPU_FACTS], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        last_words = answer.stderr.strip().splitlines()[-1:] or [f"exit code {answer.returncode}"]
        raise SetupError(f"torch can't be imported: {last_words[0]}. Delete {VENV} and run the same command again.")
    facts = json.loads(answer.stdout)
    if facts["gpus"] and facts["cuda"] is None:
        say(
            f"NVML sees {facts['gpus']} GPU(s), but torch {facts['torch']} was built without CUDA. "
            f"For GPU runs install the CUDA build:\n  {python()} -m pip install --force-reinstall "
            f"--constraint {ROOT / 'requirements.lock'} torch=={facts['torch'].split('+')[0]}\n"
            "  (on Windows, or where pip is set to CPU builds, add --index-url with the CUDA index for your driver)"
        )


def bench(arguments: list[str]) -> NoReturn:
    """The main job on the small model, which runs everywhere; says how to run the real size where there is a GPU."""
    answer = subprocess.run([str(python()), "-c", PRINT_GPU_COUNT], capture_output=True, text=True, check=False)
    if answer.stdout.strip() not in ("", "0"):
        say(
            f"{answer.stdout.strip()} GPU(s) here. The real size, with random weights:\n"
            f"  {script('wan22')} benchmark --model ti2v-5b --workload 2s-720p\n"
            "  (34 GB of disk, nothing to download; stock diffusers on one H100 took 7 s to load and 46 s a video,\n"
            "  and 58 GB of VRAM at its peak: wan22 plan says which recipe fits this card)"
        )
    say("running the tiny model: worker, flow, judging, report")
    hand_over([str(script("wan22")), "benchmark", "--model", "tiny", "--workload", "smoke", *arguments])


def test(arguments: list[str]) -> NoReturn:
    """The tests in as many processes as there are cores, four at most; ``-n 0`` among the arguments runs one by one."""
    os.chdir(ROOT)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = ["--numprocesses", str(min(cores, 4)), "--dist", "loadfile", "--no-loadscope-reorder"]
    hand_over([str(python()), "-m", "pytest", *shared, *arguments])


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


COMMANDS = {"bench": bench, "test": test, "check": check}


def hand_over(command: list[str]) -> NoReturn:
    """Becomes ``command``, so that signals and the exit code are its own and it has time to stop what it started."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(command[0], command)
    sys.exit(subprocess.call(command))  # Windows can't replace a process: it would return to the prompt at once


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
