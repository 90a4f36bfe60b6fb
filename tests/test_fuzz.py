"""benchmarks/fuzz.py: its hostile files one by one, and that it would tell what goes wrong."""

from __future__ import annotations

import importlib
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from midiex.errors import BadInput
from midiex.score import read
from midiex.smf import MAX_TRACKS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
END = b"\x00\xff\x2f\x00"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module("fuzz")
        module._state["seconds"] = 60
        yield module
        module._state.clear()


@pytest.mark.parametrize("what", ["read", "extend"])
def test_hostile_files_work_or_are_refused_clearly(fuzz: ModuleType, tmp_path: Path, what: str) -> None:
    path = tmp_path / "song.mid"
    outcomes = []
    for data in fuzz.little_songs():
        path.write_bytes(data)
        outcomes.append(fuzz.outcome(fuzz.TARGETS[what], path))
    assert set(outcomes) == {"worked", "refused"}, outcomes
    assert outcomes[0] == "worked" and outcomes.count("worked") >= 9


def test_what_once_took_too_long_or_could_not_be_written_is_read_or_refused(fuzz: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "song.mid"
    strokes = (
        bytes([1, 0xC0 | n % 15, n % 128, 0, 0x90 | n % 15, 60, 60, 5, 0x80 | n % 15, 60, 60]) for n in range(1920)
    )
    path.write_bytes(fuzz.midi([b"".join(strokes) + END]))  # looked for its name once a program
    assert len(read(path).voices) == 1920
    path.write_bytes(fuzz.midi([b"\x00\x90\x3c\x40\x60\x80\x3c\x00" + END] * (MAX_TRACKS + 1)))
    with pytest.raises(BadInput, match=f"announces {MAX_TRACKS + 1} tracks"):
        read(path)
    meter = b"\x85\x11\xff\x58\x04\x07\x03\x18\x08"  # after 10 ms, a bar that two thousand others would have followed
    path.write_bytes(fuzz.midi([b"\x00\x90\x3c\x50" + meter + b"\x81\xfe\x05\x80\x3c\x00" + END], division=32767))
    with pytest.raises(BadInput, match=r"bars of 0\.01 s where new music would begin"):
        fuzz.try_extending(path)


def test_mutations_differ_and_are_the_same_for_a_seed(fuzz: ModuleType) -> None:
    def drawn(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        return [fuzz.mutated(rng, fuzz.little_songs()) for _ in range(200)]

    inputs = drawn(0)
    assert inputs == drawn(0) != drawn(1)
    assert len(set(inputs)) > 150
    assert sum(data[:4] == b"MThd" for data in inputs) > 100  # most are refused late, if at all


def test_lengths_of_changed_tracks_are_put_right(fuzz: ModuleType) -> None:
    rng, known = random.Random(1), [fuzz.midi([b"\x00\x90\x3c\x40\x60\x80\x3c\x00" + END])]
    whole = 0
    for _ in range(100):
        data = fuzz.mutated(rng, known)
        tracks = fuzz.tracks_of(data)
        whole += sum(8 + len(track) for track in tracks) + 14 == len(data) and data[8:12] == struct.pack(">HH", 1, 1)
    assert whole > 60


def wrong(kind: str) -> None:
    if kind == "crash":
        raise ZeroDivisionError("by zero")
    if kind == "memory":
        raise MemoryError
    if kind == "unclear":
        raise BadInput("Bad file")
    if kind == "slow":
        begun = time.process_time()
        while time.process_time() - begun < 30:
            pass


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("crash", "crash: ZeroDivisionError: by zero"),
        ("memory", "too much memory"),
        ("unclear", "unclear: 'Bad file'"),
        ("slow", "too long"),
        ("none", "worked"),
    ],
)
def test_what_goes_wrong_is_told(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: str
) -> None:
    import signal

    before = signal.signal(signal.SIGPROF, fuzz._too_long)
    monkeypatch.setitem(fuzz._state, "seconds", 0.2)
    try:
        assert fuzz.outcome(lambda path: wrong(kind), tmp_path / "song.mid") == told
    finally:
        signal.signal(signal.SIGPROF, before)
