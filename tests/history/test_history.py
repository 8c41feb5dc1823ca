"""The store of runs: all or nothing, migrated, refused when newer, and nothing is lost when it is down."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.builders import make_run_record
from wan22core.errors import HistorySchemaError, HistoryUnavailableError, StorageError, UnknownNameError, UserInputError
from wan22core.history.store import HistoryStore, keep_for_later, read_baseline, remove_folders, store_waiting
from wan22core.records import RunRecord, RunState


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return make_run_record()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/folder/history.db"


def test_a_run_comes_back_equal(url: str, record: RunRecord) -> None:
    """Whole, by its id or by what it alone begins with; the newest first in the list, times in UTC."""
    later = record.model_copy(
        update={
            "run_id": "20261125T100000-fedcba",
            "created_at": datetime(2026, 11, 25, 12, tzinfo=timezone(timedelta(hours=2))),
        }
    )
    store = HistoryStore(url)
    store.add(record)
    store.add(later)
    assert store.get(record.run_id) == record
    assert store.get("20261125").run_id == later.run_id
    listed = HistoryStore(url).list_runs()
    assert [run.run_id for run in listed] == [later.run_id, record.run_id]
    assert listed[0].created_at == datetime(2026, 11, 25, 10, tzinfo=UTC)
    assert store.list_runs(workload="2s-720p") == []
    with pytest.raises(UnknownNameError, match="2 runs"):
        store.get("2026")
    with pytest.raises(UnknownNameError, match="No runs"):
        store.get("1999")


def test_a_run_is_never_overwritten(url: str, record: RunRecord) -> None:
    """The same again changes nothing, another one of that id is refused."""
    store = HistoryStore(url)
    store.add(record)
    store.add(record)
    assert len(store.list_runs()) == 1
    with pytest.raises(StorageError, match="already holds another run"):
        store.add(record.model_copy(update={"summary": "another"}))
    assert store.get(record.run_id) == record


def test_rows_and_keys_are_stored_beside_the_document(url: str, record: RunRecord, tmp_path: Path) -> None:
    """Repeats and stages are rows, one series and one environment for both runs; they go with their run."""
    store = HistoryStore(url)
    store.add(record)
    store.add(record.model_copy(update={"run_id": "other"}))
    database = sqlite3.connect(tmp_path / "folder" / "history.db")

    def count(table: str) -> int:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    assert [count(table) for table in ("series", "environments", "repeats", "stages")] == [
        1, 1, 2 * len(record.repeats), 2 * len(record.stages),
    ]  # fmt: skip
    assert store.remove_older_than(datetime(2027, 1, 1, tzinfo=UTC)) == [record.run_id, "other"]
    assert [count(table) for table in ("runs", "repeats", "stages")] == [0, 0, 0]
    database.close()


def test_only_run_folders_are_removed(tmp_path: Path) -> None:
    """A link is not followed, a path out of the folder is not taken."""
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    (runs / "a").mkdir(parents=True)
    elsewhere.mkdir()
    (runs / "b").symlink_to(elsewhere)
    assert remove_folders(runs, ["a", "b", "../elsewhere", "missing"]) == [runs / "a"]
    assert elsewhere.is_dir()


def test_a_newer_schema_is_refused(url: str, record: RunRecord, tmp_path: Path) -> None:
    """An old program does not write into what it does not know."""
    HistoryStore(url).add(record)
    with sqlite3.connect(tmp_path / "folder" / "history.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(HistorySchemaError, match=r"schema 9999; this wan22 knows up to \d{4}"):
        HistoryStore(url)


def test_a_run_of_another_version_is_named(url: str, record: RunRecord, tmp_path: Path) -> None:
    """A document with a field that this version does not have: which run, and what of it; the others are read."""
    store = HistoryStore(url)
    store.add(record)
    store.add(record.model_copy(update={"run_id": "other"}))
    with sqlite3.connect(tmp_path / "folder" / "history.db") as database:
        database.execute("UPDATE runs SET document = json_set(document, '$.labels.mood', 'x') WHERE run_id = 'other'")
    database.close()
    with pytest.raises(HistorySchemaError, match=r"The run other .* labels\.mood: Extra inputs") as refused:
        store.get("other")
    assert "the version that wrote it" in refused.value.next_action
    assert store.get(record.run_id) == record


def test_two_processes_may_open_it_first(url: str) -> None:
    """Both find a whole schema."""
    code = f"from wan22core.history.store import HistoryStore; HistoryStore({url!r}).list_runs()"
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0), ("", 0)]


def test_a_migration_that_breaks_leaves_nothing_half(url: str, tmp_path: Path) -> None:
    """Killed between two tables: the next opening starts from the beginning."""
    code = (
        "import os, signal\nfrom alembic import op\nreal, seen = op.create_table, []\n"
        "def create(name, *columns):\n"
        "    if seen: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    seen.append(name); return real(name, *columns)\n"
        f"op.create_table = create\nfrom wan22core.history.store import HistoryStore\nHistoryStore({url!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert HistoryStore(url).list_runs() == []


@pytest.mark.parametrize("kind", ["corrupt", "folder", "nonsense"])
def test_a_database_that_can_t_be_used_gets_a_sentence(tmp_path: Path, kind: str) -> None:
    """Garbage in the file, a file where the folder should be, a URL that is none."""
    (tmp_path / "corrupt.db").write_bytes(b"this is no database, but long enough to look like one" * 20)
    urls = {
        "corrupt": f"sqlite:///{tmp_path}/corrupt.db",
        "folder": f"sqlite:///{tmp_path}/corrupt.db/history.db",
        "nonsense": "no url at all",
    }
    with pytest.raises(HistoryUnavailableError) as caught:
        HistoryStore(urls[kind])
    assert caught.value.transient
    assert "\n" not in caught.value.message


def test_the_password_is_not_shown() -> None:
    """A database that does not answer: the URL is named without its password."""
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    with pytest.raises(HistoryUnavailableError) as caught:
        HistoryStore("postgresql+psycopg://user:topsecret@127.0.0.1:1/wan22")
    assert "topsecret" not in str(caught.value.as_dict())


def test_what_waits_goes_in_with_the_next(url: str, record: RunRecord, tmp_path: Path) -> None:
    """A night without a database loses nothing."""
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    (outbox / "another-version.json").write_text("{}")
    keep_for_later(record.model_copy(update={"run_id": "waited"}), outbox)
    keep_for_later(record, outbox)
    store_waiting(url, outbox)
    assert {run.run_id for run in HistoryStore(url).list_runs()} == {"waited", record.run_id}
    assert [path.name for path in outbox.iterdir()] == ["another-version.refused"], "set aside, and in nobody's way"


def test_a_killed_write_leaves_all_or_nothing(url: str, record: RunRecord, tmp_path: Path) -> None:
    """SIGKILL between the run and its rows: the run is not there, and goes in again whole."""
    HistoryStore(url)
    (tmp_path / "run.json").write_text(record.model_dump_json())
    code = (
        "import os, signal, sys, pathlib\nfrom wan22core.history.store import HistoryStore\n"
        "from wan22core.records import RunRecord\n"
        "HistoryStore._rows = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "record = RunRecord.model_validate_json(pathlib.Path(sys.argv[1]).read_bytes())\n"
        f"HistoryStore({url!r}).add(record)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.json")], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    store = HistoryStore(url)
    assert store.list_runs() == []
    store.add(record)
    assert store.get(record.run_id) == record


def test_a_baseline_is_a_name_for_a_run(url: str, record: RunRecord) -> None:
    """Set, taken over, listed, forgotten; its run is not removed with the old ones."""
    store = HistoryStore(url)
    later = record.model_copy(update={"run_id": "20261125T100000-later"})
    store.add(record)
    store.add(later)
    store.set_baseline("release", record.run_id, "first")
    assert store.baseline_run("release") == record
    store.set_baseline("release", later.run_id[:9], "second")
    assert [(each.name, each.run_id, each.note) for each in store.baselines()] == [("release", later.run_id, "second")]
    assert store.remove_older_than(datetime.now(UTC) + timedelta(days=1)) == [record.run_id]
    assert read_baseline(url, "release") == later
    store.remove_baseline("release")
    with pytest.raises(UnknownNameError, match="no baseline 'release'"):
        store.baseline_run("release")


@pytest.mark.parametrize("change", ["verdict", "labels"])
def test_what_may_not_be_compared_is_no_baseline(url: str, record: RunRecord, change: str) -> None:
    """A broken run, and one that was resumed."""
    resumed = record.labels.model_copy(update={"resumed": True})
    bad = record.model_copy(update={"verdict": RunState.BROKEN} if change == "verdict" else {"labels": resumed})
    store = HistoryStore(url)
    store.add(bad)
    with pytest.raises(UserInputError, match="can't be a baseline"):
        store.set_baseline("release", record.run_id)
    assert store.baselines() == []
