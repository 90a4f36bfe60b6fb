"""Many songs at once: what is found, what is left out, and that no song, worker or kill harms another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import write_song
from hypothesis import given
from hypothesis import strategies as st
from songs import save_talkative

from midiex.batch import run as running
from midiex.batch.inputs import Item, _inside, find, read
from midiex.batch.isolated import Worker
from midiex.batch.jobs import DONE, FAILED, REFUSED, Job, Limits, Settings
from midiex.batch.manifest import NAME, Manifest
from midiex.batch.worker import PART, Maker
from midiex.cli import main
from midiex.errors import BadInput
from midiex.smf import MAX_FILE_BYTES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_talkative(tmp_path_factory.mktemp("models") / "talkative"))


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three songs in a tree, one broken, and what is no song."""
    for name in ("a.mid", "deep/b.MID", "deep/er/c ö.midi"):
        path = tmp_path / "songs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_song(path, bars=8)
    (tmp_path / "songs" / "deep" / "broken.mid").write_bytes(b"MThd\x00\x00\x00\x06\x00\x01")
    (tmp_path / "songs" / "notes.txt").write_text("no music")
    return tmp_path / "songs"


def settings(out: Path, model: str, **more: Any) -> Settings:
    return Settings("extend", str(out), **{"seconds": 24.0, "model": model, "made_by": "tests", **more})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.mid")}


class Here:
    """Does jobs in this process."""

    def __init__(self, stop_after: int = 1_000_000):
        self.maker, self.stop_after = Maker(), stop_after

    def outcomes(self, jobs: Any) -> Any:
        for number, job in enumerate(jobs):
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield job, self.maker.do(job)

    def close(self) -> None:
        pass


def do(inputs: list[str], wanted: Settings, record: Path, workers: Any = None, **how: Any) -> tuple[Any, Any]:
    """A whole run: its plan and its tally."""
    running.prepare_out(wanted, record)
    manifest = Manifest(record)
    planned = running.plan(inputs, wanted, manifest, **how)
    return planned, running.run(planned.jobs, workers or Here(), manifest)


# ---- inputs ---------------------------------------------------------------------------------------------------------


def test_a_folders_tree_is_kept(songs: Path) -> None:
    assert [item.place for item in find([str(songs)])] == ["a.mid", "deep/b.MID", "deep/broken.mid", "deep/er/c ö.midi"]


def test_several_inputs_are_kept_apart(songs: Path) -> None:
    places = [item.place for item in find([str(songs / "deep"), str(songs), str(songs / "a.mid")])]
    assert places == sorted(places) and len(set(places)) == 3 + 4 + 1
    assert {"deep/b.MID", "songs/deep/b.MID", "songs/a.mid", "a.mid"} <= set(places)


def test_globs_keep_what_lies_behind_their_fixed_part(songs: Path) -> None:
    assert [item.place for item in find([f"{songs}/**/*.mid*"])] == ["a.mid", "deep/broken.mid", "deep/er/c ö.midi"]
    assert [item.place for item in find([f"{songs}/d*"])] == ["deep/b.MID", "deep/broken.mid", "deep/er/c ö.midi"]


def test_archives_are_read_without_being_unpacked(songs: Path, tmp_path: Path) -> None:
    path = tmp_path / "songs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(songs / "a.mid", "x/a.mid")
        archive.writestr("../../evil.mid", b"MThd")
        archive.writestr("/abs.mid", b"MThd")
        archive.writestr("readme.txt", b"")
    items = {item.place: item for item in find([str(path)])}
    assert set(items) == {"x/a.mid", "evil.mid", "abs.mid"}
    assert read(items["x/a.mid"].url) == (songs / "a.mid").read_bytes()
    assert "leads out" in items["evil.mid"].problem and "leads out" in items["abs.mid"].problem
    assert not items["x/a.mid"].problem


def test_bombs_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mid", bytes(MAX_FILE_BYTES + 1))
    [item] = find([str(path)])
    assert "limit" in item.problem
    assert Maker().do(Job(item, Settings("extend", str(tmp_path)))).result == REFUSED
    with pytest.raises(BadInput, match="limit"):
        read(item.url)


def test_urls_are_read_by_fsspec(songs: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/in/x/song.mid", (songs / "a.mid").read_bytes())
    items = find(["memory://bucket/in"])
    assert [item.place for item in items] == ["x/song.mid"]
    assert read(items[0].url) == (songs / "a.mid").read_bytes()
    assert [item.place for item in find(["memory://bucket/*/x/*.mid"])] == ["in/x/song.mid"]


@pytest.mark.parametrize("text", ["nothing_here", "nothing/*.mid", "memory://no/such", "nosuchscheme://x"])
def test_inputs_that_are_nothing_are_told(text: str) -> None:
    with pytest.raises(BadInput):
        find([text])


def test_results_inside_an_input_are_no_songs(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = songs / "deep" / "long"
    before = [item.place for item in find([str(songs)], str(out))]
    write_song(out / "a.mid", bars=4)
    assert [item.place for item in find([str(songs)], str(out))] == before
    assert "deep/long/a.mid" in [item.place for item in find([str(songs)], str(songs / "deep" / "lon"))]
    assert "long/a.mid" not in [item.place for item in find([f"{songs}/deep/*"], str(out))]
    monkeypatch.chdir(songs)
    assert [item.place for item in find(["."], "deep/long")] == before
    assert "a.mid" in [item.place for item in find([str(out)], str(songs / "deep"))]  # asked for by its name


def test_results_at_a_url_inside_an_input_are_no_songs(songs: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("x", "long/x"):
        memory.pipe_file(f"/shelf/songs/{name}.mid", (songs / "a.mid").read_bytes())
    assert [item.place for item in find(["memory://shelf/songs"], "memory://shelf/songs/long/")] == ["x.mid"]
    with pytest.raises(BadInput, match="choose an output folder"):
        find(["memory://shelf/songs"], "memory://shelf/songs/")


@pytest.mark.parametrize(
    ("inputs", "out"),
    [(["."], "."), (["*.mid"], "."), (["a.mid"], "."), (["deep/b.MID"], "deep"), (["deep", "a.mid"], "."),
     ([".", "deep"], "../songs")],
)  # fmt: skip
def test_no_result_may_replace_a_song(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], out: str
) -> None:
    monkeypatch.chdir(songs)
    record = Manifest(tmp_path / "record")
    with pytest.raises(BadInput, match="choose an output folder"):
        running.plan(inputs, Settings("extend", out), record)
    assert running.plan(inputs, Settings("convert", out, audio=".ogg"), record).jobs  # replaces nothing


@given(st.text(max_size=80))
def test_places_never_lead_out(name: str) -> None:
    place = _inside(name)
    parts = place.split("/")
    assert ".." not in parts and "." not in parts and all(parts)
    assert not place.startswith("/") and "\\" not in place and ":" not in place and "\0" not in place
    assert all(len(part.encode(errors="replace")) <= 255 for part in parts)


def test_no_two_songs_have_one_place(tmp_path: Path) -> None:
    for name in ("x.mid", "x.midi", "X.kar"):
        write_song(tmp_path / name, bars=4)
    places = [item.place for item in find([str(tmp_path)])]
    stems = [Path(place).stem.casefold() for place in places]
    assert len(set(stems)) == 3


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_what_can_be_done_is_done_and_what_cannot_is_told(songs: Path, tmp_path: Path, model: str) -> None:
    out = tmp_path / "out"
    planned, tally = do([str(songs)], settings(out, model), out)
    assert len(planned) == 4
    assert (tally.results[DONE], tally.results[REFUSED], tally.results[FAILED]) == (3, 1, 0)
    assert set(files(out)) == {"a.mid", "deep/b.mid", "deep/er/c ö.mid"}
    [(place, reason)] = tally.reasons
    assert place == "deep/broken.mid" and "cut off" in reason and str(tmp_path) not in reason
    lines = [json.loads(line) for line in (out / f"{NAME}.jsonl").read_text().splitlines()]
    assert {line["place"] for line in lines} == {item.place for item in find([str(songs)])}
    assert all(line["input_sha256"] and line["outputs"] for line in lines if line["result"] == DONE)


def test_a_second_run_does_only_what_is_missing_or_has_changed(songs: Path, tmp_path: Path, model: str) -> None:
    out = tmp_path / "out"
    wanted = settings(out, model)
    do([str(songs)], wanted, out)
    before = files(out)
    planned, _ = do([str(songs)], wanted, out)
    assert (len(planned), planned.done) == (0, 3)
    assert [place for place, reason in planned.refused if "broken.mid" in reason] == ["deep/broken.mid"]
    (out / "a.mid").unlink()
    write_song(songs / "deep" / "b.MID", bars=10)
    planned, tally = do([str(songs)], wanted, out)
    assert [job.item.place for job in planned.jobs] == ["a.mid", "deep/b.MID"]
    assert tally.results[DONE] == 2
    after = files(out)
    assert after["a.mid"] == before["a.mid"] and after["deep/b.mid"] != before["deep/b.mid"]
    assert len(do([str(songs)], wanted, out, force=True)[0]) == 4
    assert len(running.plan([str(songs)], replace(wanted, seed=1), Manifest(out))) == 4


def test_a_line_that_was_cut_off_is_as_if_never_written(songs: Path, tmp_path: Path, model: str) -> None:
    out = tmp_path / "out"
    wanted = settings(out, model)
    do([str(songs)], wanted, out)
    path = out / f"{NAME}.jsonl"
    path.write_text(path.read_text()[:-40])
    planned, tally = do([str(songs)], wanted, out)
    assert len(planned) == 1 and len(tally.results) == 1
    assert len(running.plan([str(songs)], wanted, Manifest(out))) == 0


def test_a_run_that_is_stopped_goes_on_to_the_same_results(songs: Path, tmp_path: Path, model: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    do([str(songs)], settings(whole, model), whole)
    parts.mkdir()
    (parts / f".left{PART}").write_text("half of a song")
    _, tally = do([str(songs)], settings(parts, model), parts, Here(stop_after=2), shuffle=True)
    assert tally.stopped and sum(tally.results.values()) == 2
    _, tally = do([str(songs)], settings(parts, model), parts)
    assert not tally.stopped and sum(tally.results.values()) == 2
    assert files(parts) == files(whole)
    assert not list(parts.rglob(f"*{PART}"))


def test_shards_share_the_songs(songs: Path, tmp_path: Path, model: str) -> None:
    plans = [running.plan([str(songs)], settings(tmp_path, model), Manifest(tmp_path), shard=(i, 3)) for i in (1, 2, 3)]
    places = [job.item.place for planned in plans for job in planned.jobs]
    assert sorted(places) == [item.place for item in find([str(songs)])]
    assert all(planned.others == 4 - len(planned) for planned in plans)


def test_two_runs_do_not_write_one_manifest(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Manifest(tmp_path).writing(), pytest.raises(BadInput, match="Another run"), Manifest(tmp_path).writing():
        pass


def test_results_go_to_urls_as_well(songs: Path, tmp_path: Path, model: str) -> None:
    import fsspec

    wanted = replace(settings(tmp_path, model), out="memory://results/long")
    _, tally = do([str(songs / "a.mid")], wanted, tmp_path / "record")
    assert tally.results[DONE] == 1
    assert fsspec.filesystem("memory").cat_file("/results/long/a.mid")[:4] == b"MThd"
    assert len(running.plan([str(songs / "a.mid")], wanted, Manifest(tmp_path / "record"))) == 0


def test_an_object_store_is_a_folder_as_any_other(
    songs: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server", reason="shown where s3fs and moto[server] are installed")
    s3fs = pytest.importorskip("s3fs", reason="shown where s3fs and moto[server] are installed")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        store = s3fs.S3FileSystem()
        store.mkdir("bucket")
        store.put(str(songs), "bucket/songs", recursive=True)
        wanted = replace(settings(tmp_path, model), out="s3://bucket/long")
        _, tally = do(["s3://bucket/songs"], wanted, tmp_path / "record")
        assert (tally.results[DONE], tally.results[REFUSED]) == (3, 1), tally.reasons
        assert store.cat_file("bucket/long/deep/b.mid")[:4] == b"MThd"
        assert len(running.plan(["s3://bucket/songs"], wanted, Manifest(tmp_path / "record"))) == 0
    finally:
        server.stop()


# ---- workers --------------------------------------------------------------------------------------------------------


def script_worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Workers that do what a few lines of Python say instead of making songs."""
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr("midiex.batch.isolated.subprocess.Popen", popen)


ANSWERING = """
import sys, json, os, time
for line in sys.stdin:
    place = json.loads(line)["item"]["place"]
    if place == "crash.mid": os.abort()
    if place == "slow.mid": time.sleep(60)
    if place == "leave.mid": os._exit(3)
    print(json.dumps({"result": "done", "music_s": float(os.getpid())}), flush=True)
"""


def job(place: str) -> Job:
    return Job(Item(place, place, "1"), Settings("extend", "out"))


def test_a_worker_is_replaced_when_it_dies_or_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    script_worker(monkeypatch, ANSWERING)
    worker = Worker(Limits(seconds=3.0))
    first, again = worker.do(job("a.mid")), worker.do(job("b.mid"))
    assert first.result == DONE and first.music_s == again.music_s  # the same process
    for place, why in (("crash.mid", "signal 6"), ("slow.mid", "longer than 3 s"), ("leave.mid", "code 3")):
        outcome = worker.do(job(place))
        assert outcome.result == FAILED and why in outcome.reason
        after = worker.do(job("c.mid"))
        assert after.result == DONE and after.music_s != first.music_s
    worker.close()


def test_one_songs_death_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    script_worker(monkeypatch, ANSWERING)
    places = [f"{number}.mid" for number in range(12)] + ["crash.mid", "leave.mid"]
    workers = running.Local(3, Limits(seconds=20.0))
    found = {done.item.place: outcome.result for done, outcome in workers.outcomes([job(place) for place in places])}
    assert found == {place: FAILED if place in ("crash.mid", "leave.mid") else DONE for place in places}


def test_stopping_does_not_wait_for_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    script_worker(monkeypatch, ANSWERING)
    outcomes = running.Local(1, Limits(seconds=600.0)).outcomes([job("a.mid"), job("slow.mid")])
    assert next(outcomes)[1].result == DONE
    begun = time.monotonic()
    outcomes.close()
    assert time.monotonic() - begun < 30  # slow.mid would take sixty


def test_memory_is_held_to(tmp_path: Path, songs: Path, model: str) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux holds processes to it")
    worker = Worker(Limits(seconds=120.0, memory_bytes=96 << 20))  # torch alone needs more
    outcome = worker.do(Job(find([str(songs / "a.mid")])[0], settings(tmp_path / "out", model)))
    worker.close()
    assert outcome.result == FAILED
    assert not files(tmp_path / "out") if (tmp_path / "out").exists() else True


# ---- the command ----------------------------------------------------------------------------------------------------


def midiex(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def test_the_command_runs_tells_and_goes_on_after_kill(songs: Path, tmp_path: Path, model: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    told = midiex("batch", str(songs), "-o", str(whole), "-s", "24", "--model", model, "-j", "2", "--json")
    assert told.exit_code == 1, told.output
    report = json.loads(told.stdout)
    assert (report["done"], report["refused"], report["failed"]) == (3, 1, 0)
    assert list(report["not_done"]) == ["deep/broken.mid"]
    arguments = ["batch", str(songs), "-o", str(killed), "-s", "24", "--model", model, "-j", "1"]
    command = [sys.executable, "-m", "midiex", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not files(killed) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert midiex(*arguments).exit_code == 1
    assert files(killed) == files(whole)
    again = midiex(*arguments)  # nothing is left to do, and why it is not all is told again
    assert again.exit_code == 1 and "deep/broken.mid: broken.mid " in again.output
    assert [line.split() for line in again.output.splitlines()[1:4]] == [
        ["done", "0"],
        ["done", "before", "3"],
        ["refused", "before", "1"],
    ]


def test_a_dry_run_writes_nothing(songs: Path, tmp_path: Path, model: str) -> None:
    told = midiex("batch", str(songs), "-o", str(tmp_path / "out"), "--model", model, "--dry-run")
    assert told.exit_code == 0 and "4 songs to do" in told.output
    assert not (tmp_path / "out").exists()
    told = midiex("batch", str(songs), "-o", str(tmp_path / "out"), "--model", model, "--dry-run", "--json")
    assert json.loads(told.stdout)["to_do"][0]["outputs"] == ["a.mid"]


@pytest.mark.parametrize(
    "arguments", [("--shard", "4/3"), ("--shard", "x"), ("--timeout", "0"), ("--memory", "-1"), ("--model", "none")]
)
def test_what_cannot_start_is_told(songs: Path, tmp_path: Path, arguments: tuple[str, str]) -> None:
    told = midiex("batch", str(songs), "-o", str(tmp_path / "out"), *arguments)
    assert told.exit_code == 2 and told.output.startswith("midiex: ") and told.output.count("\n") == 1
