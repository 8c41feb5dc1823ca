"""What a user may type wrongly, and what is not there: a sentence or a document, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.request import BenchmarkRequest, request_from
from tests.flows.shell import Shell
from wan22core.targets import TARGETS


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["benchmark", "--recipe", "referense"], 2, "Did you mean 'reference'?"),
        (["benchmark", "--workload", "smok"], 2, "The workloads are: smoke"),
        (["benchmark", "--width", "1270"], 2, "the nearest valid value is 1280"),
        (["benchmark", "--host-settings", "fast"], 2, "host_settings: Input should be 'stock' or 'auto'"),
        (["benchmark", "--text-encoder", "int4"], 2, "text_encoder: Input should be 'bf16', 'fp16', 'int8' or 'fp8'"),
        (["benchmark", "--duration", "2", "--frames", "49"], 2, "Give one of the two"),
        (["benchmark", "--spec", "no-such.json"], 2, "no-such.json can't be read"),
        (["benchmark", "--image", "no-such.png"], 2, "no-such.png is not there"),
        (["plan", "--gpu", "RTX 4088"], 2, "Did you mean RTX 4080"),
        (["plan", "--gpu", "RTX 4080", "--from", "."], 2, "Give one of the two"),
        (["hardware", "--from", "no-such-folder"], 2, "is no folder"),
        (["benchmark", "--nonsense"], 2, "See wan22 benchmark --help"),
        (["gate", "--run", "19990101"], 2, "begin with '19990101'"),
        (["report", "19990101"], 2, "begin with '19990101'"),
        (["weights", "check", "no-such-folder"], 2, "There is no checkpoint"),
        (["weights", "rm", "../else", "--yes"], 2, "wan22 made no checkpoint"),
    ],
)
def test_bad_input_gets_a_sentence(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    """Exit 2, what is wrong and what to do, no traceback."""
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_another_text_encoder_is_asked_for_by_an_option() -> None:
    """The command of the run asks for it again."""
    request = request_from({"recipe": "fast_int8", "text_encoder": "int8"})
    assert request.to_spec().recipe.name == "fast_int8_text_int8"
    assert request.command() == "wan22 benchmark --recipe fast_int8 --text-encoder int8"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workload": {"steps": 3}}, "a workload that is called smoke has its values"),
        ({"recipe": {"vae_precision": "bf16"}}, "recipe is called reference and has other values"),
    ],
)
def test_a_spec_does_not_borrow_a_name(shell: Shell, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """A spec that was edited by hand would pass a target that it is not about, and join another series."""
    spec = BenchmarkRequest().to_spec().model_dump(mode="json")
    for part, values in change.items():
        spec[part] |= values
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = shell.run("benchmark", "--spec", str(tmp_path / "spec.json"))
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_two_limits_of_one_name_are_refused(shell: Shell, tmp_path: Path) -> None:
    """One verdict would stand for both."""
    target = TARGETS[0].model_dump(mode="json")
    (tmp_path / "targets.json").write_text(json.dumps([target, {**target, "limit": 1.0}]))
    done = shell.run("benchmark", "--targets", str(tmp_path / "targets.json"))
    assert (done.returncode, "two limits are called model_load_time" in done.stderr) == (2, True), done.stderr


def test_with_json_an_error_is_a_document_too(shell: Shell) -> None:
    """Pipelines read the code, the message and the next step."""
    done = shell.run("benchmark", "--recipe", "nonsense", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], sorted(error)) == (2, "UNKNOWN_NAME", ["code", "log", "message", "next"])


def test_a_runs_folder_that_can_t_be_made_is_refused(shell: Shell, tmp_path: Path) -> None:
    """A file stands where the folder should be: one sentence, before anything is started."""
    (tmp_path / "file").write_text("")
    done = shell.run("benchmark", "--runs-dir", str(tmp_path / "file" / "runs"))
    assert done.returncode == 2
    assert "can't be written" in done.stderr


def test_a_server_that_is_down_and_a_port_in_use_are_said(shell: Shell) -> None:
    """Both before the run starts, with the way out."""
    down = shell.run("benchmark", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (down.returncode, "does not answer" in down.stderr) == (4, True)
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        used = shell.run("benchmark", WAN22_SERVER_PORT=port)
    assert (used.returncode, f"The port {port}" in used.stderr) == (4, True)


def test_help_loads_nothing_heavy() -> None:
    """The help is there at once: neither torch nor Prefect nor pandas nor Great Expectations is imported for it."""
    code = (
        "import sys\nfrom flows.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'diffusers', 'prefect', 'great_expectations', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "benchmark" in done.stdout
    assert json.loads(done.stderr.replace("'", '"')) == []
