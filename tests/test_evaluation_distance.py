"""Overlaps, divergences, distances of sets, and the classifier that tells sets apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex.errors import BadInput, MissingPart
from midiex.evaluation import discriminator, distance, form
from midiex.evaluation.excerpts import Excerpt
from midiex.evaluation.features import histograms, scalars
from midiex.evaluation.seam import joined
from midiex.tokens import DRUM_PITCH_OFFSET, DRUM_PROGRAM, PITCH, sort_rows

SCALE = np.array([0, 2, 4, 5, 7, 9, 11])
SOURCES = ["folk"] * 8 + ["jazz"] * 4


def excerpt_of(rows: np.ndarray, bars: int = 4) -> Excerpt:
    return Excerpt(rows, np.full(bars, 4.0), np.full(bars, 2.0))


def tune(seed: int, bars: int = 8) -> Excerpt:
    """A walk in eighths on one major scale, over drums."""
    rng = np.random.default_rng(seed)
    step = np.cumsum(rng.integers(-2, 3, 8 * bars)) % 14
    notes = [(i // 8, 6 * (i % 8), 0, int(48 + 12 * (s // 7) + SCALE[s % 7]), 12) for i, s in enumerate(step)]
    return excerpt_of(rows_of(*notes, *[(bar, 0, DRUM_PROGRAM, 36, 0) for bar in range(bars)]), bars)


def scrambled(excerpt: Excerpt, seed: int = 0) -> Excerpt:
    """Other pitches in the same places."""
    rows = excerpt.rows.copy()
    tuned = rows[:, PITCH] < DRUM_PITCH_OFFSET
    rows[tuned, PITCH] = np.random.default_rng(seed).integers(36, 84, tuned.sum())
    return Excerpt(sort_rows(rows), excerpt.bar_beats, excerpt.bar_s)


@st.composite
def excerpts(draw: st.DrawFn) -> Excerpt:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = random_rows(rng, draw(st.sampled_from([0, 1, 2, 40])), voices=draw(st.sampled_from([1, 2, 3])))
    return excerpt_of(rows)


# ---- two stretches --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(excerpts(), excerpts())
def test_overlaps_are_symmetric_shares(a: Excerpt, b: Excerpt) -> None:
    found = distance.overlap(a, b)
    assert distance.overlap(b, a) == pytest.approx(found)
    assert all(-1e-9 <= area <= 1 + 1e-9 for area in found.values())
    apart = distance.divergences(a, b)
    assert set(apart) == set(found) and all(-1e-9 <= nats < 20 for nats in apart.values())


@settings(max_examples=20, deadline=None)
@given(excerpts())
def test_music_is_like_itself(excerpt: Excerpt) -> None:
    assert all(area == pytest.approx(1) for area in distance.overlap(excerpt, excerpt).values())
    assert all(nats == pytest.approx(0, abs=1e-12) for nats in distance.divergences(excerpt, excerpt).values())


def test_overlap_by_hand() -> None:
    """Two of three pitches are shared, and every other figure is the same."""
    a, b = (excerpt_of(rows_of(*[(0, 12 * i, 0, p) for i, p in enumerate(pitches)]), 1) for pitches in
            ((60, 62, 64), (60, 62, 65)))  # fmt: skip
    found = distance.overlap(a, b)
    assert found["pitch"] == found["pitch_class"] == pytest.approx(2 / 3)
    assert found["interval"] == found["pitch_class_transition"] == pytest.approx(1 / 2)
    assert [found[name] for name in ("length", "position", "by_bar.notes")] == pytest.approx([1, 1, 1])
    assert 0 < found["by_bar.mean_pitch"] < 1


def test_what_neither_has_is_no_feature_and_what_one_lacks_is_no_likeness() -> None:
    drums = excerpt_of(rows_of(*[(bar, 0, DRUM_PROGRAM, 36, 0) for bar in range(4)]))
    assert "pitch" not in distance.overlap(drums, drums) and "velocity" in distance.overlap(drums, drums)
    assert distance.overlap(drums, tune(0))["pitch"] == distance.overlap(tune(0), drums)["by_bar.polyphony"] == 0


def test_a_song_is_more_like_itself_than_like_noise() -> None:
    near = distance.mean_overlaps([distance.overlap(tune(0), tune(1))])
    far = distance.mean_overlaps([distance.overlap(tune(0), scrambled(tune(1)))])
    assert far < near < 1


def test_continuation_score_by_hand() -> None:
    ours, ceiling = [{"a": 0.2, "b": 0.4}, {"a": 0.6}, {}], [{"a": 0.5, "b": 1.0}, {"a": 0.25}]
    assert distance.mean_overlaps(ours) == pytest.approx(0.45)
    assert distance.continuation_score(ours, ceiling) == pytest.approx(0.45 / 0.5)
    weighted = distance.continuation_score(ours, ceiling, np.array([3, 1, 1]), np.array([0, 1]))
    assert weighted == pytest.approx(0.375 / 0.25)
    assert np.isnan(distance.mean_overlaps([]))


# ---- densities ------------------------------------------------------------------------------------------------------


def test_densities_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b, w = rng.normal(0, 1, 40), rng.gamma(2, 2, 300), rng.random(300)
    p, q = distance.densities(a, b, None, w)
    kernels = stats.gaussian_kde(a), stats.gaussian_kde(b, weights=w)
    reach = distance._TAIL * max(float(k.covariance[0, 0]) ** 0.5 for k in kernels)
    grid = np.linspace(min(a.min(), b.min()) - reach, max(a.max(), b.max()) + reach, distance.GRID)
    for ours, kernel in zip((p, q), kernels, strict=True):
        theirs = kernel(grid) / kernel(grid).sum()
        np.testing.assert_allclose(ours, theirs, atol=0.01 * theirs.max())


def test_two_normal_distributions_overlap_as_computed() -> None:
    """Means two deviations apart: the areas overlap by 2 * Phi(-1) = .317, and KLD is 2**2 / 2 = 2 nats."""
    rng = np.random.default_rng(0)
    sample = np.sort(rng.normal(size=4000))
    p, q = distance.densities(sample, sample + 2)
    assert distance.overlapped_area(p, q) == pytest.approx(0.317, abs=0.03)
    assert distance.divergence(p, q) == pytest.approx(2, rel=0.15)


def test_values_without_spread() -> None:
    same, other = np.full(5, 0.3), np.full(9, 0.7)
    assert distance.overlapped_area(*distance.densities(same, np.full(2, 0.3))) == pytest.approx(1)
    assert distance.overlapped_area(*distance.densities(same, np.nextafter(same, 1))) > 0.99
    assert distance.overlapped_area(*distance.densities(same, other)) < 1e-6
    assert distance.overlapped_area(*distance.densities(same, other, floor=1.0)) > 0.8
    assert distance.overlapped_area(*distance.densities(same, np.zeros(0))) == 0
    assert distance.overlapped_area(*distance.densities(np.zeros(3), np.zeros(1))) == pytest.approx(1)


# ---- two sets -------------------------------------------------------------------------------------------------------


def described(songs: list[Excerpt]) -> list[dict[str, np.ndarray | float]]:
    return [{**scalars(song), **histograms(song)} for song in songs]


def test_a_set_is_like_itself_and_unlike_noise() -> None:
    tunes = [tune(seed) for seed in range(12)]
    itself = distance.set_distance(described(tunes), described(tunes))
    assert all(np.isnan(oa) or (oa, kld) == pytest.approx((1, 0)) for oa, kld in itself.values())
    assert not np.isnan(itself["pitch"]).any()
    noise = distance.set_distance(described(tunes), described([scrambled(t, i) for i, t in enumerate(tunes)]))
    assert noise["scale_consistency"][0] < 0.1 < 1 < noise["scale_consistency"][1]
    assert noise["onset_interval"] == pytest.approx((1, 0))


def test_songs_without_weight_do_not_count() -> None:
    songs, others = described([tune(i) for i in range(6)]), described([tune(10 + i) for i in range(6)])
    light = distance.set_distance(songs, others, np.array([1, 2, 1, 1, 1, 0]))
    without = distance.set_distance(songs[:5], others[:5], np.array([2, 4, 2, 2, 2]))
    for name, figures in without.items():
        assert light[name] == pytest.approx(figures, nan_ok=True)


def test_songs_that_lack_a_feature_are_left_out_of_it() -> None:
    drums = excerpt_of(rows_of(*[(bar, 0, DRUM_PROGRAM, 36, 0) for bar in range(8)]), 8)
    tunes, others = [tune(i) for i in range(4)], [tune(10 + i) for i in range(4)]
    with_drums = distance.set_distance(described([*tunes, drums]), described([*others, drums]))
    alone = distance.set_distance(described(tunes), described(others))
    assert with_drums["pitch"] == pytest.approx(alone["pitch"])
    assert with_drums["mean_interval"] == pytest.approx(alone["mean_interval"])
    assert np.isnan(distance.set_distance(described([drums] * 4), described([drums] * 4))["polyphony"]).all()


def test_sets_must_match() -> None:
    songs = described([tune(0), tune(1)])
    with pytest.raises(BadInput, match="2 real songs, 1 others"):
        distance.set_distance(songs, songs[:1])
    assert distance.set_distance([], []) == {}


def test_sources_weigh_the_same() -> None:
    weights = distance.equal_weights(["b", "a", "b", "b"])
    assert weights == pytest.approx([1 / 6, 1 / 2, 1 / 6, 1 / 6])


# ---- the classifier -------------------------------------------------------------------------------------------------


def test_auc_by_hand() -> None:
    scores = np.array([[[0.1, 0.9], [0.5, 0.5]]])  # wins: 1, 1, 1, and a tie
    assert discriminator.auc(scores) == pytest.approx(3.5 / 4)
    assert discriminator.auc(scores, np.array([3, 1])) == pytest.approx(15.5 / 16)
    assert discriminator.auc(np.concatenate([scores, scores[:, :, ::-1]])) == pytest.approx(0.5)


def test_the_classifier_finds_noise_and_not_a_difference_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(discriminator, "SEEDS", 1)
    real, others = ([tune(first + i) for i in range(len(SOURCES))] for first in (0, 100))
    noise = [scrambled(song, i) for i, song in enumerate(others)]
    prompts = [tune(200 + i) for i in range(len(SOURCES))]
    assert discriminator.discriminate(real, noise, SOURCES) > 0.95
    assert discriminator.discriminate(real, noise, SOURCES, prompts, relative=True) > 0.95
    assert 0.2 < discriminator.discriminate(real, others, SOURCES) < 0.8


def test_a_classifier_that_listens_to_form_hears_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars of one tune in whichever order are alike in all but what follows what."""
    pytest.importorskip("sklearn")
    monkeypatch.setattr(discriminator, "SEEDS", 1)
    heard: dict[str, list[dict[str, np.ndarray]]] = {"real": [], "looped": []}
    for i in range(len(SOURCES)):
        song, before = joined(tune(i), joined(tune(50 + i), joined(tune(100 + i), tune(150 + i)))), tune(i)
        loop = joined(song.part(0, 4), joined(song.part(0, 4), joined(song.part(0, 4), song.part(0, 4))))
        song = song.part(0, 16)
        for name, music in (("real", song), ("looped", loop)):
            heard[name].append(discriminator.vectors(before, music, before))
    assert set(heard["real"][0]) == set(discriminator.KINDS)
    for kind, (_, with_form) in discriminator.KINDS.items():
        real, looped = (np.array([one[kind] for one in heard[name]]) for name in ("real", "looped"))
        assert real.shape[1] - len(form.FIGURES) * with_form == heard["real"][0][kind.removesuffix(", with form")].size
        if with_form and kind.startswith("prompt unknown"):
            only = [np.array(v)[:, -len(form.FIGURES) :] for v in (real, looped)]
            assert discriminator.auc(discriminator.out_of_fold(*only, SOURCES)) > 0.95


def test_form_is_measured_from_the_song_so_far_and_beside_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, music = joined(tune(0), tune(9)), joined(tune(0), tune(9))
    found = dict(zip(form.FIGURES, discriminator.form_vector(prompt, music), strict=True))
    assert found == form.figures(joined(prompt, music), prompt.bars, prompt.bars + music.bars)
    assert found["returns_8"] == 1
    change = dict(zip(form.FIGURES, discriminator.form_vector(prompt, music, prompt), strict=True))
    own = form.figures(prompt, 0, prompt.bars)
    assert change == {name: pytest.approx(found[name] - own[name]) for name in form.FIGURES}
    assert own["returns_8"] < 1 and change["contrast"] == pytest.approx(0)


def test_what_nobody_has_is_no_hindrance_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(discriminator, "SEEDS", 1)
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(len(SOURCES), 3)), rng.normal(size=(len(SOURCES), 3)) + 5
    real[:, 1], other[:, 1] = np.nan, np.nan
    assert discriminator.auc(discriminator.out_of_fold(real, other, SOURCES)) > 0.95
    assert discriminator.auc(discriminator.out_of_fold(real[:, 1:2], other[:, 1:2], SOURCES)) == 0.5


def test_a_relative_vector_forgets_the_key() -> None:
    prompt, song = tune(0), tune(1)
    moved = [Excerpt(e.rows + 3 * (np.arange(8) == PITCH) * (e.rows[:, PITCH] < 128)[:, None], e.bar_beats, e.bar_s)
             for e in (song, prompt)]  # fmt: skip
    relative = discriminator.vector(song, prompt)
    np.testing.assert_allclose(discriminator.vector(*moved), relative, atol=1e-9)
    np.testing.assert_allclose(discriminator.vector(song, song)[: -len(discriminator._OVERLAPS)], 0)
    assert set(discriminator._OVERLAPS) == set(distance.overlap(song, prompt))
    assert not np.allclose(discriminator.vector(moved[0], prompt), relative)  # another key than the prompt's is heard


@settings(max_examples=15, deadline=None)
@given(excerpts(), excerpts())
def test_vectors_have_one_shape(excerpt: Excerpt, prompt: Excerpt) -> None:
    usual = tune(0)
    assert discriminator.vector(excerpt).shape == discriminator.vector(usual).shape
    assert discriminator.vector(excerpt, prompt).shape == discriminator.vector(usual, usual).shape
    assert not np.isinf(discriminator.vector(excerpt, prompt)).any()


def test_folds_share_out_sources_and_keep_groups_together() -> None:
    group = np.arange(50) // 2
    sources = np.where(np.arange(50) < 30, "a", "b")
    fold = discriminator._folds(group, sources, 0)
    assert (fold[::2] == fold[1::2]).all()
    assert np.bincount(fold[:30]).tolist() == [6] * 5 and np.bincount(fold[30:]).tolist() == [4] * 5
    assert (fold != discriminator._folds(group, sources, 1)).any()


def test_what_the_classifier_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, songs = np.zeros((6, 3)), [tune(0)] * 6
    with pytest.raises(BadInput, match="one real and one written"):
        discriminator.out_of_fold(vectors, vectors[:5], ["a"] * 6)
    with pytest.raises(BadInput, match="at least 5 groups to learn, but has 3"):
        discriminator.out_of_fold(vectors, vectors, ["a"] * 6, ["x", "x", "y", "y", "z", "z"])
    with pytest.raises(BadInput, match="0 prompts"):
        discriminator.discriminate(songs, songs, ["a"] * 6, relative=True)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingPart, match=r"midiex\[evaluate\]"):
        discriminator.out_of_fold(vectors, vectors, ["a"] * 6)
