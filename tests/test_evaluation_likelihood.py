"""Nats a note, and questions about the next chunk: what is told, what is asked, and that a network can answer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import lively_model, random_rows, random_song, tiny_config, window_chunks
from hypothesis import given
from hypothesis import strategies as st
from songs import network_alone, rows_of

from midiex import metrics, windows
from midiex.collate import collate
from midiex.conditions import CONDITIONS
from midiex.config import Config
from midiex.evaluation import likelihood
from midiex.evaluation.excerpts import Excerpt
from midiex.evaluation.likelihood import FOILS, Question, choose, disguised, nll, questions
from midiex.layers import HEAD_SIZES
from midiex.model import ChunkTransformer
from midiex.tokens import (
    BAR,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    HEAD_ORDER,
    INSTANCE,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    sort_rows,
)
from midiex.train import Run
from midiex.windows import Window, WindowChunk

BAND = (0, 32, DRUM_PROGRAM)
MAJOR = (0, 2, 4, 5, 7, 9, 11)


def tune(number: int, programs: tuple[int, ...] = BAND, *, up: int = 0, bars: int = 40, beats: float = 4.0) -> Excerpt:
    """Music that repeats every four bars, two seconds each. Its velocity is its number: that no disguise changes."""
    rng = np.random.default_rng(number)
    notes = []
    for height, program in enumerate(programs):
        for bar, place in itertools.product(range(4), range(4)):
            degree = int(rng.choice([0, 0, 4, 4, 2, *range(7)])) if bar or place else 0
            pitch = 36 + 24 * height + up + MAJOR[degree] if program != DRUM_PROGRAM else 36 + degree
            at = int(rng.integers(0, 3)) * 3 + 12 * place
            if at < 12 * beats:
                notes += [(k, at, program, pitch, 7, number) for k in range(bar, bars, 4)]
    return Excerpt(rows_of(*notes), np.full(bars, beats), np.full(bars, 2.0))


def windows_of(songs: list[Excerpt], size: int = 4) -> list[Window]:
    return [likelihood.window(music, size, k) for k, music in enumerate(songs)]


def number_of(rows: np.ndarray) -> int:
    """Which tune all rows are of."""
    (number,) = set(rows[:, VELOCITY].tolist())
    return int(number)


def key_note(rows: np.ndarray) -> int:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    return metrics.key_note(metrics.pitch_class_weights(tuned[:, PITCH], DURATIONS[tuned[:, DURATION]]))


def voices(rows: np.ndarray) -> set[tuple[int, int]]:
    return {(p, i) for p, i in rows[:, [PROGRAM, INSTANCE]].tolist()}


@torch.no_grad()
def losses_of_last(
    model: ChunkTransformer,
    config: Config,
    chunks: list[WindowChunk],
    extras: int,
    before: np.ndarray | None = None,
) -> np.ndarray:
    """What the network loses on the last chunk when all are written, (8,): its notes' steps and its end's."""
    window = Window(chunks, extras, 0, 0, before)
    return model(collate([window], config.memory, 0.0, None))[-len(chunks[-1].rows) - 1 :].double().sum(0).numpy()


# ---- nats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extras", [0, 2])
def test_nats_are_the_networks_own_chunk_by_chunk(model: ChunkTransformer, config: Config, extras: int) -> None:
    chunks = window_chunks(np.random.default_rng(1), 6, notes_per_bar=5)
    by_hand = sum(losses_of_last(model, config, chunks[: i + 1], extras) for i in range(extras, 6))
    found = nll(model, config, Window(chunks, extras, 0, 0))
    assert found.shape == (8,) and found.dtype == np.float64
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)


def test_an_undecided_network_needs_the_logarithm_of_every_choice(config: Config) -> None:
    """So every note has each of its fields counted once, and every chunk its end."""
    model = network_alone(lively_model(config))
    with torch.no_grad():
        for weight in model.heads.out.parameters():
            weight.zero_()
    chunks = window_chunks(np.random.default_rng(2), 5)
    chunks[3] = replace(chunks[3], rows=chunks[3].rows[:0], times=chunks[3].times[:0])  # a chunk of silence
    window = Window(chunks, 1, 0, 0)
    notes = sum(len(chunk.rows) for chunk in chunks[1:])
    assert likelihood.notes_of(window) == notes  # those only remembered are not foreseen
    decisions = np.full(8, notes)
    decisions[HEAD_ORDER.index(BAR)] += 4  # ends
    np.testing.assert_allclose(nll(model, config, window), decisions * np.log(HEAD_SIZES), rtol=1e-5)


def test_what_only_the_true_chunk_could_tell_is_not_told(model: ChunkTransformer, config: Config) -> None:
    """Its density, mood and instruments are unknown to the network, whatever they are."""
    chunks = window_chunks(np.random.default_rng(3), 3)
    numbers = np.arange(len(CONDITIONS))
    betrayed = [replace(c, conditions=np.where(np.isin(numbers, (0, 1, 2, 10)), c.conditions, 3)) for c in chunks]
    np.testing.assert_array_equal(
        nll(model, config, Window(chunks, 0, 0, 0)), nll(model, config, Window(betrayed, 0, 0, 0))
    )


def test_a_window_is_the_same_for_a_seed(config: Config) -> None:
    music = tune(1, bars=120)
    firsts = []
    for seed in range(12):
        a, b = (likelihood.window(music, 4, seed) for _ in range(2))
        assert a.extras == b.extras and [c.first_bar for c in a.chunks] == [c.first_bar for c in b.chunks]
        own = a.chunks[a.extras :]
        assert len(own) <= 4 and all(x.first_bar + x.bars == y.first_bar for x, y in itertools.pairwise(own))
        for chunk in a.chunks:
            there = music.part(chunk.first_bar, chunk.first_bar + chunk.bars)
            assert (chunk.rows == there.rows).all() and chunk.beats == there.bar_beats.sum()
        firsts.append(own[0].first_bar)
    assert len(set(firsts)) > 3


def test_a_window_of_dense_music_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "WINDOW_NOTES", 60)  # a chunk of this tune has about fifty
    found = likelihood.window(tune(1), 6, 0)
    counts = [len(chunk.rows) for chunk in found.chunks[found.extras :]]
    assert sum(counts) > 60 >= sum(counts[:-1])


# ---- questions ------------------------------------------------------------------------------------------------------


def test_foils_are_of_other_songs_and_look_like_the_true_chunk() -> None:
    songs = [tune(k, up=k) for k in range(6)]
    asked = questions(windows_of(songs), songs, [], 2, 0)
    assert len(asked) == 12
    for question in asked:
        true, *foils = question.options
        assert len(foils) == FOILS == 3
        assert true is question.window.chunks[-1] and len(question.window.chunks) > question.window.extras + 1
        numbers = [number_of(option.rows) for option in question.options]
        assert len(set(numbers)) == 4  # four songs
        assert numbers[0] == number_of(question.window.chunks[0].rows)
        for foil in foils:
            assert len(foil.rows) >= likelihood.FEWEST_NOTES
            assert foil.rows[:, BAR].min() >= 0 and foil.rows[:, BAR].max() < true.bars == foil.bars
            assert voices(foil.rows) == voices(true.rows)
            assert key_note(foil.rows) == key_note(true.rows)
            assert (foil.first_bar, foil.seconds, foil.beats) == (true.first_bar, true.seconds, true.beats)
            assert (foil.conditions == true.conditions).all() and (foil.start == true.start).all()
            beats = foil.rows[:, BAR] * 4 + foil.rows[:, POSITION] / 12
            np.testing.assert_allclose(foil.times, true.start + np.stack([beats, beats / 4], 1), rtol=1e-6)
            played = songs[number_of(foil.rows)].rows  # real bars of that song, note for note
            stretches = [played[(played[:, BAR] >= a) & (played[:, BAR] < a + true.bars)] for a in range(4)]
            rhythm = [sorted(zip(s[:, BAR] - a, s[:, POSITION], strict=True)) for a, s in enumerate(stretches)]
            assert sorted(zip(foil.rows[:, BAR], foil.rows[:, POSITION], strict=True)) in rhythm


def test_a_chunk_comes_first_nowhere() -> None:
    """Something is known before each chunk that is asked for, and no chunk is asked for twice."""
    songs = [tune(k) for k in range(4)]
    windows = windows_of(songs)
    asked = questions(windows, songs, [], 99, 0)
    places = [(number_of(q.options[0].rows), q.options[0].first_bar) for q in asked]
    possible = {(k, c.first_bar) for k, w in enumerate(windows) for c in w.chunks[w.extras + 1 :]}
    assert sorted(places) == sorted(possible)


def test_questions_are_the_same_for_a_seed() -> None:
    songs = [tune(k) for k in range(6)]

    def asked(seed: int) -> list[list[int]]:
        found = questions(windows_of(songs), songs, [], 1, seed)
        return [[q.options[0].first_bar, *(number_of(option.rows) for option in q.options)] for q in found]

    assert asked(3) == asked(3) != asked(4)


def test_other_sources_are_asked_only_where_the_own_does_not_suffice() -> None:
    own, others = [tune(k) for k in range(3)], [tune(k) for k in range(10, 14)]
    for question in questions(windows_of(own), own, others, 1, 0):
        numbers = [number_of(option.rows) for option in question.options]
        assert set(numbers[:3]) == {0, 1, 2} and numbers[3] >= 10
    own = [tune(k) for k in range(4)]
    for question in questions(windows_of(own), own, others, 1, 0):
        assert {number_of(option.rows) for option in question.options} == {0, 1, 2, 3}


def test_without_four_songs_or_bars_that_fit_nothing_is_asked() -> None:
    one = [tune(0)]
    assert questions(windows_of(one), one, [], 2, 0) == []
    assert questions(windows_of(one), one, [tune(1), tune(2)], 2, 0) == []
    assert len(questions(windows_of(one), one, [tune(1), tune(2), tune(3)], 2, 0)) == 2
    assert questions(windows_of(one), one, [tune(k, beats=3.0) for k in (1, 2, 3)], 2, 0) == []
    assert questions(windows_of(one), one, [tune(k, bars=2) for k in (1, 2, 3)], 2, 0) == []
    assert questions([], [], [tune(k) for k in (1, 2, 3)], 2, 0) == []


def test_bars_fit_one_by_one() -> None:
    """A chunk of three beats and five, four in the mean, has no foil among bars of four."""
    uneven = replace(tune(0), bar_beats=np.tile([3.0, 5.0], 20))
    uneven = replace(uneven, rows=uneven.rows[uneven.rows[:, POSITION] < 36])
    asked = questions(windows_of([uneven]), [uneven], [tune(k) for k in (1, 2, 3)], 3, 0)
    for foil in (foil for question in asked for foil in question.options[1:]):
        first = foil.first_bar
        assert (foil.rows[:, POSITION] < 12 * uneven.bar_beats[first + foil.rows[:, BAR]]).all()


def test_thin_chunks_are_neither_asked_for_nor_foils() -> None:
    def thinned(music: Excerpt) -> Excerpt:
        return replace(music, rows=music.rows[music.rows[:, BAR] % 4 == 0][::4])

    songs = [tune(k) for k in range(4)]
    assert questions(windows_of([thinned(songs[0])]), songs[:1], songs[1:], 2, 0) == []
    assert questions(windows_of(songs[:1]), songs[:1], [thinned(music) for music in songs[1:]], 2, 0) == []


def test_songs_of_the_same_instruments_come_first() -> None:
    songs = [tune(0), *(tune(k, (k, 80 + k)) for k in range(1, 7)), *(tune(k) for k in range(7, 10))]
    for question in questions(windows_of(songs[:1]), songs, [], 3, 0):
        assert {number_of(foil.rows) for foil in question.options[1:]} == {7, 8, 9}


# ---- disguise -------------------------------------------------------------------------------------------------------


@st.composite
def music(draw: st.DrawFn, most_span: int = 115) -> np.ndarray:
    """Rows of one to four voices, one of them perhaps drums, whose tuned notes span no more than so many semitones."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    rows = random_rows(rng, draw(st.integers(1, 50)), voices=draw(st.integers(1, 4)))
    if draw(st.booleans()):
        rows = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    tuned = rows[:, PROGRAM] != DRUM_PROGRAM
    lowest = draw(st.integers(0, 127 - most_span))
    rows[tuned, PITCH] = lowest + rows[tuned, PITCH] % (most_span + 1)
    return sort_rows(rows)


def by_height(rows: np.ndarray) -> list[tuple[int, int]]:
    """Tuned voices from low to high."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    return sorted(voices(tuned), key=lambda v: (tuned[(tuned[:, [PROGRAM, INSTANCE]] == v).all(1), PITCH].mean(), v))


@given(rows=music(), like=music())
def test_a_disguise_keeps_everything_but_key_and_instruments(rows: np.ndarray, like: np.ndarray) -> None:
    before = rows.copy()
    found = disguised(rows, like)
    assert (rows == before).all()
    assert (found == sort_rows(found)).all()
    drums, tuned = ((found[:, PROGRAM] == DRUM_PROGRAM) == kind for kind in (True, False))
    assert (found[tuned, PITCH] >= 0).all() and (found[tuned, PITCH] < 128).all() and (found[drums, PITCH] >= 128).all()
    was_drums = rows[:, PROGRAM] == DRUM_PROGRAM
    assert set(found[drums, PITCH]) == set(rows[was_drums, PITCH])
    shifts = {int(f - r) for f in np.unique(found[tuned, PITCH])[:1] for r in np.unique(rows[~was_drums, PITCH])[:1]}
    moved = {int(pitch) + shift for pitch in rows[~was_drums, PITCH] for shift in shifts}
    assert set(found[tuned, PITCH].tolist()) == moved and all(abs(shift) < 12 for shift in shifts)
    assert {tuple(r) for r in found[:, [BAR, POSITION]].tolist()} == {
        tuple(r) for r in rows[:, [BAR, POSITION]].tolist()
    }
    for kind in (True, False):
        own, others = ({v for v in voices(r) if (v[0] == DRUM_PROGRAM) == kind} for r in (rows, like))
        now = {v for v in voices(found) if (v[0] == DRUM_PROGRAM) == kind}
        assert now == own if not others else now <= others
        if others and len(own) <= len(others):
            assert len(now) == len(own)  # as many instruments as before: none merge
    if len(by_height(rows)) <= len(by_height(like)):
        assert len(found[tuned]) == (~was_drums).sum()  # not a note is lost


@given(rows=music(), like=music())
def test_voices_go_by_height(rows: np.ndarray, like: np.ndarray) -> None:
    names = by_height(like)
    if len(names) >= len(by_height(rows)) > 1:
        taken = [names.index(v) for v in by_height(disguised(rows, like))]
        heights = [rows[(rows[:, [PROGRAM, INSTANCE]] == v).all(1), PITCH].mean() for v in by_height(rows)]
        if len(set(heights)) == len(heights):
            assert taken == sorted(taken) and (taken[0], taken[-1]) == (0, len(names) - 1)


@pytest.mark.parametrize("up", range(12))
@pytest.mark.parametrize("octave", [-24, 0, 36])
def test_a_foil_takes_the_key_by_the_shorter_way(up: int, octave: int) -> None:
    like, rows = tune(1, up=up).rows, tune(2, (3, 5), up=octave).rows
    found = disguised(rows, like)
    assert key_note(found) == key_note(like)
    shift = int(found[:, PITCH].min() - rows[:, PITCH].min())
    assert -6 < shift <= 6


def test_where_there_is_no_key_pitches_stay() -> None:
    drums, tuned = tune(1, (DRUM_PROGRAM,)).rows, tune(2, (0, 40), up=3).rows
    assert (disguised(drums, tuned) == drums).all()
    assert (disguised(tuned, drums) == tuned).all()


@given(rows=music(127), like=music(127))
def test_no_note_leaves_the_keyboard(rows: np.ndarray, like: np.ndarray) -> None:
    """However far the music spans."""
    found = disguised(rows, like)
    tuned = found[found[:, PROGRAM] != DRUM_PROGRAM]
    assert (tuned[:, PITCH] >= 0).all() and (tuned[:, PITCH] < 128).all()


# ---- answers --------------------------------------------------------------------------------------------------------


def some_questions() -> list[Question]:
    songs = [tune(k, up=2 * k) for k in range(4)]
    return questions(windows_of(songs), songs, [], 2, 0)


def test_an_options_cost_is_its_own_losses_by_its_notes(model: ChunkTransformer, config: Config) -> None:
    """Each as the last of all chunks, and beside that as a song's first: what is left out to save time changes
    nothing."""
    for question in some_questions():
        costs, more = choose(model, config, question)
        assert costs.shape == more.shape == (1 + FOILS,)
        for cost, difference, option in zip(costs, more, question.options, strict=True):
            chunks = [*question.window.chunks[:-1], option]
            window = question.window
            by_hand = losses_of_last(model, config, chunks, window.extras, window.before).sum() / len(option.rows)
            assert cost == pytest.approx(by_hand, rel=1e-5)
            alone = losses_of_last(model, config, [option], 0).sum() / len(option.rows)
            assert cost - difference == pytest.approx(alone, rel=1e-5)


def test_of_a_batch_only_the_last_chunk_is_left_to_be_written(model: ChunkTransformer, config: Config) -> None:
    """With all that is told of it and of its steps, its source too."""
    song = random_song(np.random.default_rng(0), 40, 5)
    chosen = (windows.make_window(song, 4, 4096, 0, np.random.default_rng(seed), with_source=1.0) for seed in range(99))
    window = next(w for w in chosen if w.chunks[-1].goes_back is not None and len(w.chunks) - w.extras == 4)
    batch = collate([window, window], config.memory, 0.0, None, told=True)
    alone, steps = likelihood.last_target(batch), len(window.chunks[-1].rows) + 1
    assert len(alone.target) == 1 and len(alone.lengths) == len(batch.lengths)
    assert alone.aligned_bucket is not None and alone.aligned_bucket.any()
    for name in ("target", "conditions", "programs", "voices", "full", "full_kind", "summaries", "source"):
        assert torch.equal(getattr(alone, name), getattr(batch, name)[-1:]), name
    for name in ("echoes", "habit_share", "habit_level", "aligned_share", "aligned_bucket"):
        assert torch.equal(getattr(alone, name), getattr(batch, name)[-steps:]), name
    with torch.inference_mode():
        torch.testing.assert_close(model(alone), model(batch)[-steps:], rtol=1e-5, atol=1e-5)


def test_at_a_songs_beginning_nothing_of_the_song_is_counted(model: ChunkTransformer, config: Config) -> None:
    for question in some_questions():
        assert question.window.before is not None
        without = replace(question, window=replace(question.window, before=question.window.before[:0]))
        (costs, more), (others, less) = choose(model, config, question), choose(model, config, without)
        np.testing.assert_allclose(costs - more, others - less, rtol=1e-6)


def test_a_network_that_knows_the_song_chooses_it() -> None:
    torch.manual_seed(0)
    config = tiny_config(lr=0.01, warmup_steps=0, max_notes=10**9)
    songs = [tune(k, up=2 * k) for k in range(4)]
    asked = questions(windows_of(songs[:1]), songs, [], 3, 0)
    model = network_alone(ChunkTransformer(config))
    untaught = np.array([choose(model.eval(), config, question)[0] for question in asked])
    run = Run(model, config.train)
    model.train()
    for step in range(40):
        shown = windows.make_window(
            windows.Song(songs[0].rows, songs[0].bar_s, (songs[0].bar_beats * 96).astype(int)), 4, 4096, 0,
            np.random.default_rng(step),
        )  # fmt: skip
        run.step_on(model, [collate([shown], config.memory, 0.0, None)], 1)
    taught = np.array([choose(model.eval(), config, question)[0] for question in asked])
    assert np.ptp(untaught, axis=1).max() < 0.2 * untaught.mean()  # it had no opinion
    assert len(asked) == 3 and (taught.argmin(1) == 0).all()
    assert (taught[:, 0] < 0.5 * taught[:, 1:].min(1)).all()


def test_a_songs_habits_alone_choose_it() -> None:
    """A network that learnt nothing yet counts what the song did: the chunk that repeats it costs least by far."""
    torch.manual_seed(0)
    config, songs = tiny_config(), [tune(k, up=2 * k) for k in range(4)]
    model = ChunkTransformer(config).eval()
    asked = questions(windows_of(songs), songs, [], 1, 0)
    costs, more = np.array([choose(model, config, question) for question in asked]).swapaxes(0, 1)
    assert len(asked) == 4 and (costs[:, 0] < 0.5 * costs[:, 1:].min(1)).all()
    assert (more[:, 0] < more[:, 1:].min(1) - 1).all()  # nor would it be as cheap at a song's beginning
