"""The n-gram: proper probabilities, learning by counting, and writing that keeps to bars, voices and ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import random_rows, song_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from songs import rows_of

from midiex import tokens
from midiex.chunks import chunk_starts, cut
from midiex.dataset import Songs
from midiex.errors import BadInput
from midiex.evaluation.excerpts import Excerpt
from midiex.evaluation.ngram import NGram
from midiex.evaluation.ngram.contexts import ADAPTIVE, SIZES, STATIC
from midiex.evaluation.ngram.counting import Table
from midiex.evaluation.ngram.decisions import Music, decisions
from midiex.evaluation.ngram.writing import Writer
from midiex.tokens import BAR, FIELD_SIZES, HEAD_ORDER, INSTANCE, MICRO, MICRO_CENTER, PITCH, POSITION, PROGRAM
from midiex.windows import Song

BARS, CHUNK_BARS = 16, 4
TUNE = (60, 64, 67, 72, 71, 67, 65, 62)


def songs_of(source: str, songs: list[Song]) -> Songs:
    rows = np.concatenate([song.rows for song in songs])
    return Songs(
        source,
        rows[:, 1:].astype(np.uint8),
        rows[:, BAR].astype(np.int32),
        np.concatenate([song.bar_s for song in songs]),
        np.concatenate([song.bar_units for song in songs]),
        np.cumsum([0, *(len(song.rows) for song in songs)]),
        np.cumsum([0, *(len(song.bar_s) for song in songs)]),
    )


def tune(pitches: tuple[int, ...], bars: int = BARS, up: int = 0) -> np.ndarray:
    """Eighths, a bar of eight after the other."""
    return rows_of(*((i // 8, 6 * (i % 8), 0, up + pitches[i % len(pitches)], 5, 20) for i in range(8 * bars)))


def chunks_of(rows: np.ndarray, bars: int = BARS) -> tuple[list[np.ndarray], list[int]]:
    chunks = cut(rows, np.arange(0, bars + 1, CHUNK_BARS))
    return [c.rows for c in chunks], [c.bars for c in chunks]


def excerpt(rows: np.ndarray, bars: int = BARS, beats: float = 4.0) -> Excerpt:
    return Excerpt(rows, np.full(bars, beats), np.full(bars, 2.0))


def train(seed: int = 0) -> NGram:
    """On tunes in several keys and on noise of three voices with drums."""
    rng = np.random.default_rng(0)
    tunes = [song_of(tune(TUNE, up=k % 7), BARS) for k in range(30)]
    noise = [song_of(random_rows(rng, 200, BARS), BARS) for _ in range(15)]
    return NGram.train([songs_of("tunes", tunes), songs_of("noise", noise)], 20_000, seed)


@pytest.fixture(scope="module")
def model() -> NGram:
    return train()


def a_note(model: NGram, rows: np.ndarray, last: int) -> float:
    """Nats a note of the last `last` chunks."""
    nats = model.nll(*chunks_of(rows))[-last:]
    return float(nats.sum() / (len(rows) * last * CHUNK_BARS / BARS))


# ---- probabilities --------------------------------------------------------------------------------------------------


class Watched(Writer):
    """Keeps the sum of every distribution it draws from."""

    def __init__(self, *args: object):
        self.sums: dict[str, list[float]] = {part: [] for part in SIZES}
        self.least = 1.0
        super().__init__(*args)  # type: ignore[arg-type]

    def distribution(self, part: str, told: dict[str, int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        p, asked = super().distribution(part, told)
        self.sums[part].append(float(p.sum()))
        self.least = min(self.least, float(p.min() if part != "leap" else p[: told["left"] + 1].min()))
        return p, asked


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), adaptive=st.booleans())
def test_probabilities_sum_to_one_and_none_is_zero(model: NGram, seed: int, adaptive: bool) -> None:
    rng = np.random.default_rng(seed)
    prompt = excerpt(random_rows(rng, 60, BARS), BARS)
    writer = Watched(model if adaptive else model.as_static(), prompt, rng, 1.5)
    for _ in range(2):
        writer.write_chunk(np.full(4, 48))
    assert all(sums for part, sums in writer.sums.items())
    assert np.allclose(np.concatenate(list(writer.sums.values())), 1)
    assert writer.least > 0


@pytest.mark.parametrize("name", [f for f in HEAD_ORDER if f not in (BAR, POSITION, PROGRAM)])
def test_the_last_note_s_field_sums_to_one_over_its_values(model: NGram, name: int) -> None:
    rows = tune(TUNE, 2)
    values = range(FIELD_SIZES[name] if name != PITCH else 128)
    without = model.nll([rows[:-1]], [2])[0, HEAD_ORDER.index(name)]
    total = 0.0
    for value in values:
        rows[-1, name] = value
        total += np.exp(without - model.nll([rows], [2])[0, HEAD_ORDER.index(name)])
    assert total == pytest.approx(1)


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), adaptive=st.booleans())
def test_what_is_written_is_as_likely_as_when_it_is_read(model: NGram, seed: int, adaptive: bool) -> None:
    """Reading sees all notes at once, writing only those written: so reading does not peek."""
    rng = np.random.default_rng(seed)
    model = model if adaptive else model.as_static()
    prompt = excerpt(random_rows(rng, 80, BARS), BARS)
    writer = Writer(model, prompt, rng, 1.0)
    borders = np.append(chunk_starts(prompt.bar_s), [BARS + 4, BARS + 7])
    for bars in (4, 3):
        writer.write_chunk(np.full(bars, 48))
    chunks = cut(writer.rows[: writer.length], borders)
    nats = model.nll([c.rows for c in chunks], [c.bars for c in chunks])
    assert writer.nats == pytest.approx(nats[-2:].sum())


def test_every_note_and_the_end_are_decided_once(model: NGram) -> None:
    rows = random_rows(np.random.default_rng(3), 50, 8)
    found = decisions(Music.of([[(c.rows, c.bars) for c in cut(rows, np.array([0, 4, 8]))]]))
    assert set(found) == set(STATIC) == set(ADAPTIVE) == set(SIZES)
    assert all(len(found[part].values) == len(rows) for part in SIZES if part != "leap")
    for part, told in found.items():
        assert (told.values >= 0).all() and (told.values < SIZES[part]).all()
    assert (found["leap"].values <= found["leap"].columns["left"]).all()
    assert (found["stay"].values == 0).sum() == len(np.unique(rows[:, BAR]))


def test_empty_chunks_and_a_note_beyond_all_training_have_finite_nats(model: NGram) -> None:
    empty = np.zeros((0, 8), np.int32)
    nats = model.nll([empty, rows_of((2, 90, 77, 3, 40, 1, 5)), empty], [4, 4, 3], before=[empty, tune(TUNE, 4)])
    assert nats.shape == (3, len(HEAD_ORDER)) and np.isfinite(nats).all()
    only_bar = np.array(HEAD_ORDER) == BAR
    assert (nats[[0, 2]][:, ~only_bar] == 0).all() and (nats[:, only_bar] > 0).all()
    assert nats[1, HEAD_ORDER.index(PROGRAM)] > 3


# ---- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [2, -9])  # a key of the training songs, and one that none of them is in
def test_a_tune_of_the_training_songs_is_known_in_every_key(model: NGram, up: int) -> None:
    scrambled = tune(TUNE, up=up)
    scrambled[:, PITCH] = np.random.default_rng(0).permutation(scrambled[:, PITCH])
    known = a_note(model.as_static(), tune(TUNE, up=up), 3)
    assert known < 0.6
    assert a_note(model.as_static(), scrambled, 3) > known + 1


def test_the_adaptive_one_learns_a_motif_while_it_hears_it(model: NGram) -> None:
    motif = tuple(np.random.default_rng(7).integers(40, 90, 16).tolist())
    rows = tune(motif)
    at_first = float(model.nll(*chunks_of(rows))[0].sum() / (8 * CHUNK_BARS))
    at_last = a_note(model, rows, 1)
    assert at_last < 0.7 * at_first
    assert at_last < a_note(model.as_static(), rows, 1) - 0.5


def test_what_was_heard_before_helps(model: NGram) -> None:
    motif = tuple(np.random.default_rng(8).integers(40, 90, 16).tolist())
    chunks, bars = chunks_of(tune(motif, 4), 4)
    assert model.nll(chunks, bars, before=[tune(motif, 4)]).sum() < 0.7 * model.nll(chunks, bars).sum()


def test_later_chunks_change_nothing_of_earlier_ones(model: NGram) -> None:
    chunks, bars = chunks_of(random_rows(np.random.default_rng(1), 90, BARS))
    changed = [*chunks[:2], *chunks_of(tune(TUNE))[0][2:]]
    assert np.array_equal(model.nll(chunks, bars)[:2], model.nll(changed, bars)[:2])


def test_tables_count_what_was_seen() -> None:
    keys = np.array([256 + 3, 256 + 5, 1024 + 255], np.uint64)
    table = Table.of(keys, np.array([4, 1, 2]))
    contexts = np.array([256, 256, 512, 1024], np.uint64)
    seen, kinds, times = table.look_up(contexts, np.array([3, 4, 3, 255], np.uint64))
    assert (seen.tolist(), kinds.tolist(), times.tolist()) == ([5, 5, 0, 2], [2, 2, 0, 1], [4, 0, 0, 2])
    kinds, values, counts = table.seen(contexts[[3, 2, 1]])
    assert (kinds.tolist(), values.tolist(), counts.tolist()) == ([1, 0, 2], [255, 3, 5], [2, 4, 1])


# ---- writing --------------------------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), beats=st.sampled_from([4.0, 3.0, 3.5]), temperature=st.sampled_from([1.0, 2.0]))
def test_what_is_written_keeps_to_bars_voices_and_ranges(
    model: NGram, seed: int, beats: float, temperature: float
) -> None:
    rows = random_rows(np.random.default_rng(seed), 80, BARS)
    rows = rows[rows[:, POSITION] < 12 * beats]
    new = model.continue_(excerpt(rows, BARS, beats), np.full(9, beats), np.full(9, 2.5), seed, temperature)
    assert new.bars == 9 and new.seconds == 22.5 and new.rows.dtype == np.int32
    assert np.array_equal(new.rows, tokens.sort_rows(new.rows))
    assert (new.rows >= 0).all() and (new.rows < np.array(FIELD_SIZES)).all()
    assert (new.rows[:, BAR] < 9).all() and (new.rows[:, POSITION] < 12 * beats).all()
    assert (new.rows[new.rows[:, POSITION] == 0, MICRO] >= MICRO_CENTER).all()
    for program, instance in np.unique(new.rows[:, [PROGRAM, INSTANCE]], axis=0):
        mine, theirs = (r[(r[:, PROGRAM] == program) & (r[:, INSTANCE] == instance), PITCH] for r in (new.rows, rows))
        assert len(theirs) and mine.min() >= theirs.min() - 3 and mine.max() <= theirs.max() + 3
        assert program != tokens.DRUM_PROGRAM or np.isin(mine, theirs).all()


def test_a_tune_goes_on(model: NGram) -> None:
    new = model.continue_(excerpt(tune(TUNE)), np.full(8, 4.0), np.full(8, 2.0), 1)
    expected = tune(TUNE, 8)
    ours = {tuple(row) for row in new.rows[:, [BAR, POSITION, PITCH]].tolist()}
    theirs = {tuple(row) for row in expected[:, [BAR, POSITION, PITCH]].tolist()}
    assert len(ours & theirs) > 0.8 * len(theirs)


def test_the_same_seed_writes_the_same_music(model: NGram) -> None:
    prompt = excerpt(random_rows(np.random.default_rng(5), 80, BARS))
    first, again, other = (model.continue_(prompt, np.full(4, 4.0), np.full(4, 2.0), s).rows for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_low_temperature_writes_the_likelier(model: NGram) -> None:
    prompt = excerpt(random_rows(np.random.default_rng(5), 80, BARS))

    def surprise(temperature: float) -> float:
        writer = Writer(model, prompt, np.random.default_rng(0), temperature)
        writer.write_chunk(np.full(4, 48))
        return writer.nats / max(1, writer.length - len(prompt.rows))

    assert surprise(0.5) < surprise(2.0)


def test_a_prompt_without_notes_is_refused(model: NGram) -> None:
    with pytest.raises(BadInput, match="needs notes"):
        model.continue_(excerpt(np.zeros((0, 8), np.int32)), np.full(4, 4.0), np.full(4, 2.0), 0)


def test_no_bars_are_no_music(model: NGram) -> None:
    assert len(model.continue_(excerpt(tune(TUNE)), np.zeros(0), np.zeros(0), 0).rows) == 0


# ---- files ----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(model: NGram, tmp_path: Path) -> None:
    model.save(tmp_path / "ngram.safetensors")
    loaded = NGram.load(tmp_path / "ngram.safetensors")
    chunks, bars = chunks_of(random_rows(np.random.default_rng(2), 90, BARS))
    for one, other in ((model, loaded), (model.as_static(), loaded.as_static())):
        assert np.array_equal(one.nll(chunks, bars), other.nll(chunks, bars))
    assert not np.array_equal(model.nll(chunks, bars), model.as_static().nll(chunks, bars))
    arrays = load_file(tmp_path / "ngram.safetensors")  # plain arrays: nothing in it is run when it is read
    assert arrays and all(array.dtype.kind in "uif" for array in arrays.values())


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tensors here")
    save_file({"a": np.zeros(1)}, tmp_path / "other", {"contexts": "[]"})
    for name, what in (("text", "not an n-gram"), ("nowhere", "not an n-gram"), ("other", "contexts")):
        with pytest.raises(BadInput, match=what):
            NGram.load(tmp_path / name)


def test_training_is_repeatable_and_needs_songs(model: NGram) -> None:
    again, chunks = train(), chunks_of(tune(TUNE))
    assert np.array_equal(model.nll(*chunks), again.nll(*chunks))
    for sources in ([], [songs_of("one", [song_of(tune(TUNE), BARS)])]):
        with pytest.raises(BadInput, match="two songs"):
            NGram.train(sources, 1000, 0)
