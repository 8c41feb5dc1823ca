"""``wan22 plan`` and ``wan22 hardware`` with what this machine's people and runs left: real processes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hardware.test_rates import measured
from tests.planning.test_device_calibration import H100, run
from wan22core.hardware.manual import load_entries, prefer
from wan22core.hardware.rates import keep_rates, load_rates
from wan22core.history.store import HistoryStore
from wan22core.settings import Settings

_COMMAND = """
import sys
from flows.cli.main import cli
from flows.cli.output import run_guarded
code = run_guarded(cli)
print(*sorted({"torch", "prefect", "sqlalchemy", "pandas"} & set(sys.modules)), sep=",", file=sys.stderr)
sys.exit(code)
"""


def wan22(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in this test's data folder; the last line of stderr names the heavy modules it loaded."""
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", **environment},
        timeout=120,
        check=False,
    )


def planned(*arguments: str, **environment: str) -> tuple[dict[str, Any], str]:
    done = wan22("plan", "--json", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines()[-1]


def test_a_plan_without_history_and_rates_assumes() -> None:
    """No database is made for it, and nothing that reads one is imported."""
    document, loaded = planned("--gpu", H100)
    assert document["rates"]["source"] == "assumed"
    assert document["calibration"]["stages"] == {}
    assert document["calibration"]["reasons"]["denoise"] == "the history has no comparable run of this card"
    assert loaded == ""
    assert not (Settings().data_dir / "history.db").exists()


def test_the_runs_of_a_card_correct_its_plan_and_no_other() -> None:
    """Read from the history's database, without torch; the plan says which runs, as text too."""
    before, _ = planned("--gpu", H100)
    store = HistoryStore(Settings().history_url)
    for day in (3, 20):
        store.add(run(day=day).model_copy(update={"run_id": f"run-{day}"}))
    store.close()
    after, loaded = planned("--gpu", H100)
    denoise = after["calibration"]["stages"]["denoise"]
    assert denoise["factor"] == pytest.approx(1.2)
    assert denoise["source"] == "calibrated by 2 runs of this device from 2026-11-03 to 2026-11-20"
    for old, new in zip(before["candidates"], after["candidates"], strict=True):
        assert new["time_s"]["denoise"][1] == pytest.approx(1.2 * old["time_s"]["denoise"][1], abs=0.01)
    assert loaded == "sqlalchemy"
    assert "denoise x 1.20: calibrated by 2 runs of this device" in wan22("plan", "--gpu", H100).stdout
    assert planned("--gpu", "RTX 4080")[0]["calibration"]["stages"] == {}


def test_a_run_of_another_version_is_left_out_and_said() -> None:
    """One of three is not understood: the other two count, and what they are too few for says so."""
    store = HistoryStore(Settings().history_url)
    for day in (3, 20, 21):
        store.add(run(day=day).model_copy(update={"run_id": f"run-{day}"}))
    store.close()
    with sqlite3.connect(Settings().data_dir / "history.db") as database:
        database.execute("UPDATE runs SET document = json_set(document, '$.mood', 'x') WHERE run_id = 'run-21'")
    database.close()
    calibration = planned("--gpu", H100)[0]["calibration"]
    assert (calibration["stages"]["denoise"]["runs"], calibration["unread"]) == (2, 1)
    assert calibration["reasons"]["encode_image"] == (
        "no run of this card measured it; 1 of its runs can't be understood by this version"
    )


def test_a_history_that_can_not_be_read_costs_no_plan(tmp_path: Path) -> None:
    """The reason stands where the factors would."""
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all" * 100)
    document, _ = planned("--gpu", H100, WAN22_DATABASE_URL=f"sqlite:///{broken}")
    assert document["recommended"] in {each["recipe"] for each in document["candidates"] if each["fits"]}
    assert "the history can't be read: " in document["calibration"]["reasons"]["denoise"]


def test_measured_rates_count_here_and_given_ones_everywhere(tmp_path: Path) -> None:
    """A card in this machine takes this machine's disk; another machine's dumps don't."""
    keep_rates(Settings().data_dir, measured())
    here, _ = planned("--gpu", H100)
    assert (here["rates"]["disk_bytes_s"], here["rates"]["source"]) == (
        1.5e9,
        "disk measured 2026-11-24, copies assumed",
    )
    given, _ = planned("--gpu", H100, "--disk-gb-s", "7", "--copy-gb-s", "10")
    assert (given["rates"]["disk_bytes_s"], given["rates"]["source"]) == (7e9, "given")
    first = (each["candidates"][0]["time_s"]["load"][1] for each in (here, given))
    assert next(first) > next(first)
    (tmp_path / "nvidia-smi.csv").write_text(f"index, name, memory.total [MiB]\n0, {H100}, 81559 MiB\n")
    elsewhere, _ = planned("--from", str(tmp_path))
    assert elsewhere["rates"]["source"] == "assumed"
    refused = wan22("plan", "--gpu", H100, "--disk-gb-s", "0")
    assert (refused.returncode, "--disk-gb-s" in refused.stderr) == (2, True)


def test_the_rates_of_this_machine_are_measured_and_kept(tmp_path: Path) -> None:
    """The disk alone with --no-torch, by the checkpoint's file that is there (a sparse one takes no room)."""
    weights = tmp_path / "weights"
    weights.mkdir()
    with (weights / "model.safetensors").open("wb") as stream:
        stream.truncate(2**30)
    document = json.loads(
        wan22("hardware", "--measure-rates", "--no-torch", "--json", WAN22_WEIGHTS_DIR=str(weights)).stdout
    )
    assert (document["disk"]["path"], document["disk"]["files"]) == (str(weights), ["model.safetensors"])
    assert document["disk"]["read_bytes"] == 2**30
    assert document["copies"]["pinned_bytes_s"]["reason"] == "torch was not asked"
    assert document["copies_measured_at"] is None
    kept = load_rates(Settings().data_dir)
    assert kept is not None and kept.model_dump(mode="json") == document
    assert [path.name for path in weights.iterdir()] == ["model.safetensors"]


def test_a_preference_is_shown_used_and_forgotten() -> None:
    """Two cards that were entered by hand stand for a machine of several unlike GPUs."""
    for name, mib in (("NVIDIA GeForce RTX 4090", "24564"), ("NVIDIA GeForce RTX 4080", "16376")):
        assert wan22("hardware", "set-vram", name, mib).returncode == 0
    if planned()[0]["gpu"] != "GeForce RTX 4090":
        pytest.skip("this machine has a GPU of its own")
    assert "auto takes NVIDIA GeForce RTX 4080." in wan22("hardware", "prefer", "rtx 4080").stdout
    assert planned()[0]["gpu"] == "GeForce RTX 4080"
    assert "Preferred GPU: NVIDIA GeForce RTX 4080" in wan22("hardware", "--no-torch").stdout
    refused = wan22("hardware", "prefer", "RTX 4088")
    assert refused.returncode == 2
    assert "1 NVIDIA GeForce RTX 4080" in refused.stderr
    assert load_entries(Settings().data_dir).preferred_gpu == "NVIDIA GeForce RTX 4080"
    assert planned()[0]["remarks"] == []
    prefer(Settings().data_dir, "NVIDIA L4", [])
    document = planned()[0]
    assert document["gpu"] == "GeForce RTX 4090"
    (remark,) = document["remarks"]
    assert remark.startswith("The preferred GPU NVIDIA L4 is not among those of this machine that can be planned for")
    assert "this is for GeForce RTX 4090" in remark
    assert remark in wan22("plan").stdout
    assert "auto takes the first one" in wan22("hardware", "prefer", "none").stdout
    assert planned()[0]["gpu"] == "GeForce RTX 4090"
