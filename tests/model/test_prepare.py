"""Checkpoints converted once: what a load in that precision gives, less to read, and a source that nobody touched."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from flows.cli.weights import weights
from tests.model.test_direct_loader import CPU, contents, spec
from wan22core.errors import CheckpointLayoutError, CorruptWeightsError, InsufficientDiskSpaceError, UserInputError
from wan22core.files import sha256
from wan22core.model.building import is_complete
from wan22core.model.integrity import check_checkpoint, weights_record
from wan22core.model.layout import PROVENANCE_FILE
from wan22core.model.loader import MODULES, file_bytes, load_component
from wan22core.model.prepare import prepare
from wan22core.records import Progress
from wan22core.specs import Loader, Precision

BF16 = {"transformer": "bf16", "text_encoder": "bf16", "vae": "none"}
FP16 = {"transformer": "fp16", "text_encoder": "fp16", "vae": "fp16"}
INT8 = {"transformer": "int8", "text_encoder": "int8", "vae": "bf16"}


def prepared(source: Path, folder: Path, precisions: dict[str, str]) -> dict[str, Any]:
    return prepare(source=str(source), folder=str(folder), precisions=precisions, report=lambda _: None)


def state_of(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Content, mode and time of change of every file; the count of its links may grow."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): (sha256(path), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture(scope="module")
def bf16(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny`` prepared for bf16; read only."""
    folder = tmp_path_factory.mktemp("prepared") / "bf16"
    prepared(tiny_checkpoint, folder, BF16)
    return folder


def test_a_load_reads_less_and_gives_the_same(tiny_checkpoint: Path, bf16: Path) -> None:
    """By both loaders, in bf16 and in the checkpoint's own precision."""
    before, after = file_bytes(tiny_checkpoint), file_bytes(bf16)
    assert after["transformer"] < 0.51 * before["transformer"]
    assert (after["text_encoder"], after["vae"]) == (before["text_encoder"], before["vae"])
    for name in MODULES:
        vae = Precision.NONE
        expected = contents(load_component(name, tiny_checkpoint, spec(Loader.STOCK, Precision.BF16, vae), CPU))
        for loader in Loader:
            for precision in (Precision.BF16, Precision.NONE):
                found = load_component(name, bf16, spec(loader, precision, vae), CPU)
                assert contents(found) == expected, (name, loader, precision)


def test_fp16_keeps_what_a_load_keeps_in_fp32(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The text encoder's ``wo`` would overflow; plain ``from_pretrained`` reads the dtype from the config."""
    prepared(tiny_checkpoint, tmp_path / "fp16", FP16)
    for name in MODULES:
        expected = contents(load_component(name, tiny_checkpoint, spec(Loader.STOCK, Precision.FP16), CPU))
        assert contents(load_component(name, tmp_path / "fp16", spec(Loader.DIRECT, Precision.NONE), CPU)) == expected
        assert (torch.float32 in {dtype for dtype, _ in expected.values()}) is (name != "vae")
    config = json.loads((tmp_path / "fp16" / "text_encoder" / "config.json").read_text())
    assert config["dtype"] == "float16"


def test_the_result_is_a_checkpoint_like_any_other(tiny_checkpoint: Path, bf16: Path) -> None:
    """Whole, hashed, of an identity of its own, and it says what it was made from."""
    found = check_checkpoint(bf16, hash_files=True)
    assert {each.verdict for each in found} == {"ok"}
    hashed = [each for each in found if each.path.endswith(".safetensors")]
    assert {each.reason for each in hashed} == {"sha256 as recorded"}
    source, result = weights_record(tiny_checkpoint, made=False), weights_record(bf16, made=False)
    assert (result.source, result.architecture) == ("random", "tiny")
    assert result.weights_id != source.weights_id
    provenance = json.loads((bf16 / PROVENANCE_FILE).read_text())
    assert (provenance["prepared_from"], provenance["precisions"]) == (source.weights_id, BF16)
    assert provenance["versions"].keys() == {"wan22", "torch", "diffusers", "transformers", "safetensors"}


def test_what_need_not_change_is_linked(tiny_checkpoint: Path, bf16: Path) -> None:
    files = [path.relative_to(bf16) for path in bf16.rglob("*") if path.is_file()]
    linked = {file.parts[0] for file in files if is_linked(file, bf16, tiny_checkpoint)}
    written = {file.parts[0] for file in files if not is_linked(file, bf16, tiny_checkpoint)}
    assert linked == {"text_encoder", "vae", "tokenizer", "scheduler", "model_index.json"}
    assert written == {"transformer", PROVENANCE_FILE}


def is_linked(file: Path, folder: Path, source: Path) -> bool:
    """Whether the file of that relative path is one file in both folders."""
    return (source / file).exists() and (folder / file).samefile(source / file)


def test_a_hub_snapshot_of_symbolic_links_is_linked_to_its_blobs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    for path in tiny_checkpoint.rglob("*"):
        if path.is_file():
            link = snapshot / path.relative_to(tiny_checkpoint)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    prepared(snapshot, tmp_path / "out", BF16)
    shard = tmp_path / "out" / "vae" / "diffusion_pytorch_model.safetensors"
    assert not shard.is_symlink()
    assert shard.samefile(tiny_checkpoint / "vae" / "diffusion_pytorch_model.safetensors")


def test_another_file_system_gets_copies(tiny_checkpoint: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tiny_checkpoint.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        target = Path(folder) / "bf16"
        prepared(tiny_checkpoint, target, BF16)
        assert {each.verdict for each in check_checkpoint(target, hash_files=True)} == {"ok"}
        assert not is_linked(Path("vae/config.json"), target, tiny_checkpoint)


def test_the_second_call_writes_nothing(tiny_checkpoint: Path, bf16: Path) -> None:
    before = state_of(bf16)
    assert prepared(tiny_checkpoint, bf16, BF16) == json.loads((bf16 / PROVENANCE_FILE).read_text())
    assert state_of(bf16) == before


def test_progress_counts_the_sources_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    prepare(source=str(tiny_checkpoint), folder=str(tmp_path / "p"), precisions=BF16, report=seen.append)
    assert (seen[-1].fraction, seen[-1].bytes_done) == (1.0, sum(file_bytes(tiny_checkpoint).values()))
    assert [each.bytes_done for each in seen] == sorted(each.bytes_done or 0 for each in seen)


def test_nothing_is_replaced(tiny_checkpoint: Path, bf16: Path, tmp_path: Path) -> None:
    """Another precision's folder, the source, a folder inside or around it, what wan22 did not make: each stays."""
    before = state_of(bf16), state_of(tiny_checkpoint)
    with pytest.raises(UserInputError, match="holds another checkpoint: its precisions is"):
        prepared(tiny_checkpoint, bf16, FP16)
    for folder in (tiny_checkpoint, tiny_checkpoint / "bf16", tiny_checkpoint.parent):
        with pytest.raises(UserInputError, match="never touched"):
            prepared(tiny_checkpoint, folder, BF16)
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(CheckpointLayoutError, match="did not make"):
        prepared(tiny_checkpoint, tmp_path, BF16)
    assert (state_of(bf16), state_of(tiny_checkpoint)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_broken_source_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "source")
    (tmp_path / "source" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CorruptWeightsError, match=r"vae/diffusion_pytorch_model\.safetensors"):
        prepared(tmp_path / "source", tmp_path / "out", BF16)
    assert not (tmp_path / "out").exists()


def test_room_is_asked_for_what_is_written_only(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the transformer and some small files; links need none."""
    usage = shutil.disk_usage(tmp_path)
    half = file_bytes(tiny_checkpoint)["transformer"] // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=half - 1))
    with pytest.raises(InsufficientDiskSpaceError, match="Preparing tiny needs"):
        prepared(tiny_checkpoint, tmp_path / "out", BF16)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=half + 4 * 2**20))
    prepared(tiny_checkpoint, tmp_path / "out", BF16)
    assert is_complete(tmp_path / "out")


IN_A_CHILD = """
import json, sys
from wan22core.model.prepare import prepare
prepare(
    source=sys.argv[1], folder=sys.argv[2], precisions=json.loads(sys.argv[3]),
    report=lambda progress: print(progress.fraction, flush=True),
)
"""


@pytest.mark.parametrize("method", [FP16, pytest.param(INT8, marks=pytest.mark.slow)], ids=["fp16", "int8"])
def test_a_prepare_that_is_killed_leaves_the_source_and_is_finished_by_the_next(
    tiny_checkpoint: Path, tmp_path: Path, method: dict[str, str]
) -> None:
    """SIGKILL from outside at moments that nobody chose: whole or not there, and the next call cleans up."""
    target, before = tmp_path / "out", state_of(tiny_checkpoint)
    for _ in range(2):
        moment = secrets.randbelow(1000) / 1000
        command = [sys.executable, "-c", IN_A_CHILD, str(tiny_checkpoint), str(target), json.dumps(method)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if float(line) >= moment:
                    break
            child.kill()
            child.wait()
        assert child.returncode in (-signal.SIGKILL, 0), moment
        assert target.exists() is is_complete(target), moment
        assert state_of(tiny_checkpoint) == before, moment
    prepared(tiny_checkpoint, target, method)
    assert {each.verdict for each in check_checkpoint(target, hash_files=True)} == {"ok"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]
    assert state_of(tiny_checkpoint) == before


def test_the_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """In a worker child; the folder is named by source and precisions, and the list knows it."""
    asked = ["--precision", "int8", "--text-encoder", "fp8", "--vae-precision", "bf16"]
    done = CliRunner().invoke(weights, ["prepare", str(tiny_checkpoint), *asked, "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    source = weights_record(tiny_checkpoint, made=False).weights_id
    assert Path(document["folder"]).name == f"tiny-{source}-int8-text-fp8-vae-bf16"
    assert document["precisions"] == {"transformer": "int8", "text_encoder": "fp8", "vae": "bf16"}
    assert document["source_folder"] == str(tiny_checkpoint)
    assert CliRunner().invoke(weights, ["check", document["folder"], "--hash"]).exit_code == 0
    listed = json.loads(CliRunner().invoke(weights, ["list", "--json"]).stdout)
    assert [each["name"] for each in listed["checkpoints"]] == [Path(document["folder"]).name]
