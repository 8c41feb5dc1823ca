"""``nvidia-smi`` on this machine, asked where NVML can't be: its XML, else a table of its main figures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from wan22core.hardware.formats import nvidia_csv, nvidia_table, nvidia_xml
from wan22core.hardware.formats.facts import Facts

XML = ("-q", "-x")
CSV = (
    "--query-gpu=index,name,uuid,memory.total,memory.used,driver_version,compute_cap,power.limit,temperature.gpu,"
    "mig.mode.current,ecc.mode.current",
    "--format=csv",
)
_ELSEWHERE = (Path("/usr/lib/wsl/lib/nvidia-smi"),)  # WSL does not put it on every PATH
_ANSWER_S = 10.0


def ask() -> Facts:
    """What it says; errors and notes alone where it says nothing of use."""
    said = Facts()
    for arguments, read in ((XML, nvidia_xml.read), (CSV, nvidia_csv.read)):
        text, reason = run_nvidia_smi(arguments)
        if text is None:
            said.notes.append(f"nvidia-smi: {reason}.")
            return said
        if (found := read("nvidia-smi", text)) is not None and found.gpus:
            return found
        if (complaint := nvidia_table.read("nvidia-smi", text)) is not None:
            said.errors += [code for code in complaint.errors if code not in said.errors]
    said.notes.append("nvidia-smi lists no GPU.")
    return said


def run_nvidia_smi(arguments: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Its output with its complaints, or the reason why there is none."""
    program = shutil.which("nvidia-smi") or next((str(path) for path in _ELSEWHERE if path.exists()), None)
    if program is None:
        return None, "it is not installed"
    try:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=_ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {_ANSWER_S:g} s"
    except OSError as error:
        return None, f"it can't be run: {error.strerror}"
    return (done.stdout + done.stderr).decode(errors="replace"), None
