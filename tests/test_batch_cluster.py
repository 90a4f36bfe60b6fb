"""A real Dask cluster of several worker processes, one of which is killed in mid-run: results as if none had been."""

from __future__ import annotations

import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import write_song
from songs import save_talkative

from midiex.batch import run as running
from midiex.batch.cluster import Cluster
from midiex.batch.jobs import DONE, Limits, Settings
from midiex.batch.manifest import Manifest
from midiex.errors import BadInput

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        yield cluster


def test_a_cluster_that_loses_a_worker_makes_the_same(cluster: Any, tmp_path: Path) -> None:
    model = save_talkative(tmp_path / "talkative")
    for number in range(6):
        (tmp_path / "songs").mkdir(exist_ok=True)
        write_song(tmp_path / "songs" / f"{number}.mid", bars=8, seed=number)
    results = {}
    for name in ("here", "there"):
        settings = Settings("extend", str(tmp_path / name), seconds=40.0, model=str(model), made_by="tests")
        running.prepare_out(settings, tmp_path / name)
        manifest = Manifest(tmp_path / name)
        jobs = running.plan([str(tmp_path / "songs")], settings, manifest).jobs
        limits = Limits(seconds=120.0)
        if name == "here":
            tally = running.run(jobs, running.Local(2, limits), manifest)
        else:
            killer = threading.Thread(target=kill_one, args=(cluster,))
            killer.start()
            workers = Cluster(cluster.scheduler_address, limits)
            tally = running.run(jobs, workers, manifest)
            workers.close()
            killer.join()
        assert tally.results == {DONE: 6}, tally.reasons
        assert len(manifest.known) == 6
        results[name] = {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.mid")}
    assert len(results["here"]) == 6 and results["there"] == results["here"]


def test_workers_in_other_folders_find_songs_and_put_results(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_talkative(tmp_path / "talkative")
    write_song(tmp_path / "songs" / "a.mid", bars=8)
    with zipfile.ZipFile("more.zip", "w") as archive:
        archive.write("songs/a.mid", "b.mid")
    (tmp_path / "elsewhere").mkdir()
    with distributed.Client(cluster.scheduler_address) as client:
        client.run(os.chdir, str(tmp_path / "elsewhere"))
    settings = Settings("extend", "long", seconds=24.0, model="talkative", made_by="tests")
    running.prepare_out(settings, Path("long"))
    manifest = Manifest(Path("long"))
    workers = Cluster(cluster.scheduler_address, Limits(seconds=120.0))
    tally = running.run(running.plan(["songs", "more.zip"], settings, manifest).jobs, workers, manifest)
    workers.close()
    assert tally.results == {DONE: 2}, tally.reasons
    assert all(Path("long", place).is_file() for place in manifest.known)
    assert {line["url"] for line in manifest.known.values()} == {"songs/a.mid", "zip://b.mid::more.zip"}


def kill_one(cluster: Any) -> None:
    """Kills a worker as soon as one is at work."""
    with distributed.Client(cluster.scheduler_address) as client:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            busy = [address for address, keys in client.processing().items() if keys]
            if busy:
                pid = client.run(os.getpid, workers=busy[:1])[busy[0]]
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.05)


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midiex.batch.cluster.ANSWER_S", 1.0)
    with pytest.raises(BadInput, match="scheduler"):
        Cluster("tcp://127.0.0.1:9", Limits())
