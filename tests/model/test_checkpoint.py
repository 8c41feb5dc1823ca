"""Random checkpoints: the hub's layout, the same bytes for a seed, nothing half made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from wan22core.errors import (
    CheckpointLayoutError,
    InsufficientDiskSpaceError,
)
from wan22core.files import sha256
from wan22core.model import checkpoint
from wan22core.model.building import is_complete
from wan22core.model.layout import PROVENANCE_FILE
from wan22core.records import Progress


def test_the_layout_is_the_hubs(tiny_checkpoint: Path) -> None:
    """Sharded transformer and text encoder with an index, one VAE file, a pipeline index with expand_timesteps."""
    index = json.loads((tiny_checkpoint / "model_index.json").read_text())
    assert (index["expand_timesteps"], index["transformer_2"]) == (True, [None, None])
    for folder, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        shards = json.loads((tiny_checkpoint / folder / f"{stem}.safetensors.index.json").read_text())
        named = set(shards["weight_map"].values())
        assert named == {file.name for file in (tiny_checkpoint / folder).glob("*.safetensors")}
        assert len(named) > 1
    assert (tiny_checkpoint / "vae" / "diffusion_pytorch_model.safetensors").is_file()


def test_the_same_seed_gives_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    provenance = checkpoint.make_random(folder=str(tmp_path / "t"), architecture="tiny", seed=0, report=seen.append)
    original = json.loads((tiny_checkpoint / PROVENANCE_FILE).read_text())
    assert provenance["sha256"] == original["sha256"]
    assert {name: sha256(tmp_path / "t" / name) for name in provenance["sha256"]} == provenance["sha256"]
    assert (seen[-1].fraction, seen[-1].bytes_done) == (1.0, seen[-1].bytes_total)
    first = checkpoint.random_tensor("vae", "a.weight", (4, 4), "float32", seed=0)
    assert not torch.equal(first, checkpoint.random_tensor("vae", "a.weight", (4, 4), "float32", seed=1))
    assert not torch.equal(first, checkpoint.random_tensor("vae", "b.weight", (4, 4), "float32", seed=0))


def test_a_killed_make_leaves_no_checkpoint_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing: nothing stands under the final name."""
    target = tmp_path / "tiny"
    code = (
        "import os, signal\n"
        "from wan22core.model.checkpoint import make_random\n"
        "def report(p):\n"
        "    if p.fraction > 0.5: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"make_random(folder={str(target)!r}, architecture='tiny', seed=0, report=report)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ))
    assert (done.returncode, is_complete(target)) == (-signal.SIGKILL, False)
    assert list(tmp_path.glob(".tiny.making-*")) != []
    checkpoint.make_random(folder=str(target), architecture="tiny", seed=0, report=lambda _: None)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["tiny"]


def test_a_disk_too_small_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(InsufficientDiskSpaceError, match="random tiny checkpoint needs"):
        checkpoint.make_random(folder=str(tmp_path / "t"), architecture="tiny", seed=0, report=lambda _: None)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_make_never_replaces_what_wan22_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(CheckpointLayoutError, match="did not make"):
        checkpoint.make_random(folder=str(tmp_path), architecture="tiny", seed=0, report=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_disk_that_fills_up_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """A real file size limit in a child stands in for the full disk: the same write fails, with another number."""
    target = tmp_path / "tiny"
    code = (
        "import resource, signal\n"
        "from wan22core.errors import StorageError\n"
        "from wan22core.model.checkpoint import make_random\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))\n"
        "try:\n"
        f"    make_random(folder={str(target)!r}, architecture='tiny', seed=0, report=lambda _: None)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "could not be written: File too large" in done.stdout
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_second_maker_takes_what_the_first_one_made(tmp_path: Path) -> None:
    """Started while the first holds the lock, it waits, and writes nothing."""
    target = tmp_path / "tiny"
    second: list[Progress] = []
    results: list[dict[str, object]] = []

    def make_second() -> None:
        results.append(checkpoint.make_random(folder=str(target), architecture="tiny", seed=0, report=second.append))

    other = threading.Thread(target=make_second)
    waiting = threading.Event()

    def start_second(_: Progress) -> None:
        if not other.ident:
            other.start()
            waiting.wait(timeout=0.5)  # the second comes to the lock, or later to the finished checkpoint's lock

    first = checkpoint.make_random(folder=str(target), architecture="tiny", seed=0, report=start_second)
    other.join()
    assert (results, second) == ([first], [])
