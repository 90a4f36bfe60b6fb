"""Copies are found in any key, tempo and instrument, only in one song at a time, and not where there are none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import random_rows, song_of
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex import dataset, windows
from midiex.errors import BadInput
from midiex.evaluation import originality
from midiex.evaluation.excerpts import Excerpt
from midiex.evaluation.originality import Index, build, longest_shared_run, share
from midiex.tokens import BAR, DRUM_PROGRAM, INSTANCE, MICRO, PITCH, POSITION, PROGRAM, sort_rows


def songs_of(source: str, songs: list[windows.Song]) -> dataset.Songs:
    """A shard in memory."""
    rows = np.concatenate([song.rows for song in songs])
    return dataset.Songs(
        source,
        rows[:, 1:].astype(np.uint8),
        rows[:, BAR].astype(np.uint16),
        np.concatenate([song.bar_s for song in songs]),
        np.concatenate([song.bar_units for song in songs]),
        np.concatenate([[0], np.cumsum([len(song.rows) for song in songs])]),
        np.concatenate([[0], np.cumsum([len(song.bar_s) for song in songs])]),
    )


def melody(seed: int, notes: int = 64, program: int = 0) -> np.ndarray:
    """Rows of eighths and sixteenths at random, one voice in 4/4."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.choice([3, 6], notes)) - 3
    return rows_of(*((t // 48, t % 48, program, int(p)) for t, p in zip(at, rng.integers(40, 80, notes), strict=True)))


def excerpt(rows: np.ndarray, bar_s: float = 2.0) -> Excerpt:
    bars = int(rows[-1, BAR]) + 1 if len(rows) else 1
    return Excerpt(rows, np.full(bars, 4.0), np.full(bars, bar_s))


def index_of(*songs: np.ndarray) -> Index:
    return build([songs_of("made", [song_of(rows, int(rows[-1, BAR]) + 1) for rows in songs])])


def test_a_copy_in_another_key_tempo_and_instrument_is_found_whole() -> None:
    index = index_of(melody(1), melody(2), melody(3))
    copy = melody(2, program=40)
    copy[:, PITCH] += 5
    copy[:, BAR] += 3
    played = excerpt(copy, bar_s=1.3)
    assert share(played, index) == 1
    run = longest_shared_run(played, index)
    assert (run.notes, run.song) == (64, "made 1")
    assert run.kinds > 20


def test_random_music_shares_nothing() -> None:
    index = index_of(*(melody(seed) for seed in range(20)))
    assert share(excerpt(melody(99)), index) == 0
    assert longest_shared_run(excerpt(melody(99)), index) == originality.SharedRun(0, 0, "")


def test_a_run_is_of_one_song_though_its_grams_are_of_two() -> None:
    whole = melody(5, 40)
    line = excerpt(whole)
    index = index_of(whole[:24], whole[16:])  # every gram of eight notes lies in one of them, no more than 24 notes do
    assert share(line, index) == 1
    assert longest_shared_run(line, index).notes == 24


def test_runs_do_not_cross_voices_nor_songs() -> None:
    tune = melody(6, 20)
    second = tune[10:].copy()
    second[:, INSTANCE] = 1
    index = index_of(sort_rows(np.concatenate([tune[:10], second])))
    assert longest_shared_run(excerpt(tune), index).notes == 10
    assert longest_shared_run(excerpt(tune), index_of(tune[:10], tune[10:])).notes == 10


def test_drums_and_music_of_fewer_than_eight_notes_do_not_count() -> None:
    beat = rows_of(*((i // 8, 6 * (i % 8), DRUM_PROGRAM, 36 + i % 3) for i in range(64)))
    index = index_of(sort_rows(np.concatenate([melody(1), beat])))
    assert math.isnan(share(excerpt(beat), index))
    assert longest_shared_run(excerpt(beat), index).notes == 0
    assert math.isnan(share(excerpt(melody(1)[:7]), index))
    assert share(excerpt(melody(1)[:8]), index) == 1
    assert longest_shared_run(excerpt(melody(1)[:8]), index).notes == 8


def test_feel_is_no_disguise_and_rhythm_is() -> None:
    tune = melody(7)
    index = index_of(tune)
    loose = tune.copy()
    loose[:, MICRO] += np.random.default_rng(0).integers(-3, 4, len(tune)).astype(np.int32)
    assert longest_shared_run(excerpt(sort_rows(loose)), index).notes == 64
    straight = rows_of(*((i // 8, 6 * (i % 8), 0, int(p)) for i, p in enumerate(tune[:, PITCH])))
    assert longest_shared_run(excerpt(straight), index).notes < 12


def test_repeated_notes_are_shared_but_of_one_kind() -> None:
    repeated = rows_of(*((i // 8, 6 * (i % 8), 0, 60) for i in range(48)))
    index = index_of(np.concatenate([repeated[:40]]), melody(2))
    assert share(excerpt(repeated), index) == 1
    run = longest_shared_run(excerpt(repeated), index)
    assert (run.notes, run.kinds) == (40, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(-20, 20), st.integers(0, 4), st.integers(10, 40))
def test_any_stretch_of_any_song_is_found_in_any_key(seed: int, up: int, first_bar: int, notes: int) -> None:
    rng = np.random.default_rng(seed)
    songs = [random_rows(rng, 80, bars=8) for _ in range(3)]
    for rows in songs:
        tuned = rows[:, PROGRAM] != DRUM_PROGRAM
        rows[tuned, PITCH] = 20 + rows[tuned, PITCH] % 80
    songs = [sort_rows(rows) for rows in songs]
    index = index_of(*songs)
    part = songs[1][(songs[1][:, BAR] >= first_bar)][:notes].copy()
    part[part[:, PROGRAM] != DRUM_PROGRAM, PITCH] += up
    part[:, BAR] -= first_bar
    found, steps = excerpt(part), originality.voice_steps(excerpt(part))
    in_voices = np.diff(np.append(np.flatnonzero(steps == 0xFFFF), len(steps)))
    longest = in_voices.max(initial=0)
    assert longest_shared_run(found, index).notes >= (longest if longest >= 8 else 0)
    assert share(found, index) == 1 or longest < 8


def test_longest_run_is_that_of_comparing_everything() -> None:
    rng = np.random.default_rng(3)
    few = [rng.choice([0, 2], 60) for _ in range(4)]  # few kinds of steps, so that much is shared by chance
    made = [rows_of(*((i // 8, 6 * (i % 8), 0, 50 + int(p)) for i, p in enumerate(line))) for line in few]
    index, ours = index_of(*made[:3]), np.diff(few[3])
    longest = 0
    for line in few[:3]:
        theirs = np.diff(line)
        for a in range(len(ours)):
            for b in range(len(theirs)):
                k = 0
                while max(a, b) + k < len(ours) and ours[a + k] == theirs[b + k]:
                    k += 1
                longest = max(longest, k + 1)
    assert longest >= 8
    assert longest_shared_run(excerpt(made[3]), index).notes == longest


def test_an_index_is_the_same_after_saving(tmp_path: Path) -> None:
    index = index_of(melody(1), melody(2))
    index.save(tmp_path / "index.safetensors")
    again = Index.load(tmp_path / "index.safetensors")
    assert again.names == ("made 0", "made 1")
    assert longest_shared_run(excerpt(melody(2)), again) == longest_shared_run(excerpt(melody(2)), index)
    (tmp_path / "other.safetensors").write_bytes(b"not an index")
    with pytest.raises(BadInput, match="not an index"):
        Index.load(tmp_path / "other.safetensors")
    with pytest.raises(BadInput):
        Index.load(tmp_path / "missing.safetensors")


def test_an_index_of_nothing_finds_nothing() -> None:
    index = build([])
    assert share(excerpt(melody(1)), index) == 0
    assert longest_shared_run(excerpt(melody(1)), index).notes == 0


def test_triplets_and_sixteenths_keep_their_places() -> None:
    rows = rows_of(*((0, position, 0, 60) for position in (0, 3, 4, 6, 8, 9, 12)))
    steps = originality.voice_steps(excerpt(rows))
    assert len(set(steps[1:].tolist())) == len({3, 1, 2})  # in 1/12 beat: 3, 1, 2, 2, 1, 3
    assert rows[:, POSITION].tolist() == [0, 3, 4, 6, 8, 9, 12]
