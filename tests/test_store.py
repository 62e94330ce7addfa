"""The run directory: atomic publication, raw readers, damage, locks, epochs."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from cluster.files import temporary_name
from orchestrator.errors import StoreError
from orchestrator.lock import is_locked, launch_lock
from orchestrator.publish import publish_once, replace
from orchestrator.run_dir import _clean_up
from orchestrator.store import Store, rows_frame

SCHEMA = pl.Schema(
    {"trial_id": pl.String, "pack_id": pl.String, "data_size": pl.Float64, "status": pl.String}
    | {"solved_at_step": pl.Int64, "score": pl.Float64}
)


def frame(*trial_ids: str, status: str = "solved") -> pl.DataFrame:
    rows = [{"trial_id": t, "pack_id": "p", "data_size": 64.0, "status": status} for t in trial_ids]
    return rows_frame(rows, SCHEMA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    created = Store.create(tmp_path / 'a run\'s "dir" – ü')
    created.publish_schema("trials", SCHEMA)
    return created


def test_a_published_file_stays(store: Store) -> None:
    """The first to take a name keeps it, and the second is told."""
    path = store.path / "trials" / "x"
    assert publish_once(path, b"first")
    assert not publish_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.glob("*.tmp.*")] == []


def test_many_publishers_one_winner(tmp_path: Path) -> None:
    """Of processes that publish one name at once exactly one wins, and the file is its."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        wins = pool.starmap(publish_once, [(tmp_path / "x", str(i).encode()) for i in range(16)])
    assert sum(wins) == 1
    assert (tmp_path / "x").read_bytes() == str(wins.index(True)).encode()


def test_a_full_disk_is_a_message_and_leaves_nothing(tmp_path: Path) -> None:
    """No space: StoreError names the file and says what to do; no half file is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(StoreError, match=r"disk/x: cannot be written: No space left on device\. Nothing"):
            publish_once(disk / "x", b"0" * 100_000)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_raw_readers_see_the_rows(store: Store) -> None:
    """polars, DuckDB and pandas read trials/*.parquet as they are, before and after the first row."""
    pattern = str(store.path / "trials" / "*.parquet")
    assert pl.scan_parquet(pattern).collect().height == 0
    store.publish("trials", "p", 0, frame("a", "b"))
    store.publish("trials", "p", 1, frame("c"))
    assert pl.scan_parquet(pattern).collect()["trial_id"].to_list() == ["a", "b", "c"]
    (count,) = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [pattern]).fetchone() or (0,)
    assert count == 3
    assert pd.read_parquet(store.path / "trials")["trial_id"].to_list() == ["a", "b", "c"]


def test_readers_never_see_half_a_file(store: Store) -> None:
    """While another process publishes as fast as it can, every scan succeeds and never shrinks."""
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_store import Store, frame
        store = Store(Path({str(store.path)!r}))
        for i in range(150):
            store.publish("trials", f"{{i % 7:016x}}", i, frame(f"t{{i}}"))
        """
    )
    writer = subprocess.Popen([sys.executable, "-c", code])
    heights = [0]
    while writer.poll() is None:
        heights.append(pl.scan_parquet(str(store.path / "trials" / "*.parquet")).collect().height)
    assert writer.returncode == 0
    assert heights == sorted(heights)
    assert store.scan("trials").collect().height == 150


def test_scan_gives_every_trial_once(store: Store) -> None:
    """A trial that two parts hold is read once, the first one's row."""
    store.publish("trials", "p", 0, frame("a", status="solved"))
    store.publish("trials", "p", 1, frame("a", "b", status="unsolved"))
    rows = store.scan("trials").select("trial_id", "status").collect()
    assert rows.rows() == [("a", "solved"), ("b", "unsolved")]
    assert store.statuses() == {"a": "solved", "b": "unsolved"}


def test_a_gained_column_comes_first(store: Store) -> None:
    """After a sweep gains an axis, the newest schema sorts first; old rows are null there."""
    store.publish("trials", "p", 0, frame("a"))
    store.publish_schema("trials", pl.Schema({**SCHEMA, "depth": pl.Int64}))
    pattern = str(store.path / "trials" / "*.parquet")
    raw = pl.scan_parquet(pattern, missing_columns="insert").collect()
    assert raw.select("trial_id", "depth").rows() == [("a", None)]
    assert store.scan("trials").collect().schema == pl.Schema({**SCHEMA, "depth": pl.Int64})
    store.publish_schema("trials", SCHEMA)
    assert len(list((store.path / "trials").glob("0000000000000000.*"))) == 2


def test_damaged_files_are_named_and_skipped(store: Store) -> None:
    """A truncated file is left out of scans and reported; the others are read."""
    store.publish("trials", "p", 0, frame("a"))
    store.publish("trials", "q", 0, frame("b"))
    path = store.part_path("trials", "q", 0)
    path.write_bytes(path.read_bytes()[:-20])
    assert store.scan("trials").collect()["trial_id"].to_list() == ["a"]
    assert [damaged.path for damaged in store.unreadable()] == [path]
    assert [damaged.path for damaged in store.damaged()] == [path]


def test_damage_inside_a_file_is_found(store: Store) -> None:
    """A file whose footer is whole but whose pages are not is found by reading it."""
    store.publish("trials", "q", 0, frame(*(f"trial-{i}" for i in range(2000))))
    path = store.part_path("trials", "q", 0)
    content = bytearray(path.read_bytes())
    content[40:200] = b"\xff" * 160
    path.write_bytes(content)
    assert [damaged.path for damaged in store.damaged()] == [path]


def test_an_unknown_directory_is_a_message(tmp_path: Path) -> None:
    """Opening what is no run directory says so, and how to make one."""
    with pytest.raises(StoreError, match=r"nowhere: not a run directory \(it has no sweep.yaml\)"):
        Store.open(tmp_path / "nowhere")


def test_an_unwritable_directory_is_a_message(tmp_path: Path) -> None:
    """A directory that cannot be made is a StoreError with the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory"):
        Store.create(tmp_path / "file" / "run")


def test_two_launches_at_once(tmp_path: Path) -> None:
    """The second launch is refused, with host and process of the first; the lock goes with its process."""
    code = f"""
import time
from pathlib import Path
from orchestrator.lock import launch_lock
with launch_lock(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    with (
        pytest.raises(StoreError, match=rf"another launch is running here \(host .*, process {holder.pid}\)"),
        launch_lock(tmp_path),
    ):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with launch_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
    assert not is_locked(tmp_path)


def test_epochs_count_drivers(store: Store) -> None:
    """Each driver gets the next number."""
    assert [store.epoch, store.next_epoch(), store.next_epoch(), store.epoch] == [0, 1, 2, 2]


def test_replace_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """A reader of a file that is replaced over and over sees one version or the other."""
    path = tmp_path / "x"
    replace(path, b"a" * 100_000)
    code = f"""
from pathlib import Path
from orchestrator.publish import replace
for i in range(100):
    replace(Path({str(path)!r}), (b"b" if i % 2 else b"a") * 100_000)
"""
    writer = subprocess.Popen([sys.executable, "-c", code])
    seen = set()
    while writer.poll() is None:
        seen.add(path.read_bytes())
        time.sleep(0.001)
    assert writer.returncode == 0
    assert seen <= {b"a" * 100_000, b"b" * 100_000}


def left_by_the_dead(path: Path) -> Path:
    """What a process that was killed in the middle of writing leaves."""
    code = f"""
import os
from pathlib import Path
from orchestrator import publish
publish.os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
publish.replace(Path({str(path)!r}), b"half")
"""
    before = set(path.parent.iterdir())
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = set(path.parent.iterdir()) - before
    return left


def test_what_dead_processes_left_unfinished_is_removed(store: Store) -> None:
    """At once if the process was this host's, else after a day. What others are writing stays, and so does what a
    user has given such a name, in a snapshot of the code."""
    for folder in ("cluster/code/c0de/modules", "checkpoints/p"):
        (store.path / folder).mkdir(parents=True)
    names = ["trials/a.parquet", "cluster/head.json", "checkpoints/p/1-0"]
    dead = [left_by_the_dead(store.path / name) for name in names]
    mine = temporary_name(store.path / "sweep.yaml")
    theirs, forgotten = (store.path / f"trials/{c}.parquet.tmp.another.host.1.1" for c in "bc")
    users = store.path / "cluster" / "code" / "c0de" / "modules" / "data.tmp.old"
    for path in (mine, theirs, forgotten, users):
        path.touch()
    for path in (forgotten, users):
        os.utime(path, (0, time.time() - 25 * 3600))
    (store.path / "packs" / "p.json").write_text("{}")
    _clean_up(store)
    assert [] == [path for path in (*dead, forgotten) if path.exists()]
    assert [] == [path for path in (mine, theirs, users) if not path.exists()]


def test_a_file_that_takes_its_place_while_others_are_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary name is gone then, which is no error."""
    path = store.path / "trials" / "a.parquet.tmp.another.host.1.1"
    path.touch()
    original = Path.stat

    def publishing(found: Path, **options: bool) -> os.stat_result:
        if found == path:
            path.unlink()
        return original(found, **options)

    monkeypatch.setattr(Path, "stat", publishing)
    _clean_up(store)
    assert [] == list((store.path / "trials").glob("*.tmp.*"))
