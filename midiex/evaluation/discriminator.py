"""Can a classifier tell written music from real? Boosted trees on features, judged on songs they have not seen.

An AUC of .5 says that it cannot, 1 that it always can. Knows features and excerpts; knows no models of music. Needs
scikit-learn (`pip install 'midiex[evaluate]'`), which is imported when first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import metrics
from ..errors import BadInput, MissingPart
from ..grid import POSITIONS_PER_BEAT
from ..tokens import DRUM_PITCH_OFFSET, PITCH
from . import form
from .distance import equal_weights, overlap
from .excerpts import Excerpt
from .features import BAR_STEPS, MOST_INTERVAL, by_bar, histograms, scalars
from .seam import joined

SEEDS, FOLDS = 5, 5
_OCTAVE = slice(MOST_INTERVAL - 12, MOST_INTERVAL + 13)
# What a classifier may know and hear: the prompt, and form.
KINDS = {
    "prompt unknown": (False, False), "prompt unknown, with form": (False, True),
    "prompt known": (True, False), "prompt known, with form": (True, True),
}  # fmt: skip
# What `overlap` may give, in the order in which a relative vector has it.
_OVERLAPS = (
    "pitch_class", "pitch_class_transition", "pitch", "interval", "length", "length_transition", "onset_interval",
    "position", "velocity", "instrument", *(f"by_bar.{name}" for name in BAR_STEPS),
)  # fmt: skip


def vector(excerpt: Excerpt, prompt: Excerpt | None = None) -> np.ndarray:
    """What a classifier sees of an excerpt, shape (d,) float64, NaN where there is nothing to measure.

    All scalars; pitch classes counted from the key note, intervals within the octave, lengths, onset intervals,
    positions in the beat, loudness in eight steps; and of each series over bars its spread and how much one bar differs
    from the next. With the song's `prompt` all of these as differences from the prompt's, the prompt's key note being
    zero for both, and the overlaps of the two: who knows what the song is like judges more strictly.
    """
    if prompt is None:
        return _described(excerpt, _key_note(excerpt))
    key = _key_note(prompt)
    shared = overlap(prompt, excerpt)
    change = _described(excerpt, key) - _described(prompt, key)
    return np.concatenate([change, [shared.get(name, np.nan) for name in _OVERLAPS]])


def form_vector(before: Excerpt, excerpt: Excerpt, prompt: Excerpt | None = None) -> np.ndarray:
    """What a classifier that listens to form sees besides: form.FIGURES of an excerpt that follows all of `before`, as
    differences from the prompt's own with the song's `prompt`; NaN where either is too short to have form."""
    song = joined(before, excerpt)
    found = np.array([*form.figures(song, before.bars, song.bars).values()])
    if prompt is not None:
        found -= np.array([*form.figures(prompt, 0, prompt.bars).values()])
    return found


def vectors(before: Excerpt, excerpt: Excerpt, prompt: Excerpt) -> dict[str, np.ndarray]:
    """What a classifier of each of KINDS sees of an excerpt that follows all of `before`."""
    plain = {known: vector(excerpt, prompt if known else None) for known in (False, True)}
    formed = {known: form_vector(before, excerpt, prompt if known else None) for known in (False, True)}
    return {
        kind: np.concatenate([plain[known], formed[known]]) if with_form else plain[known]
        for kind, (known, with_form) in KINDS.items()
    }


def _described(excerpt: Excerpt, key_note: int) -> np.ndarray:
    shares = histograms(excerpt)
    series = by_bar(excerpt).values()
    return np.concatenate(
        [
            list(scalars(excerpt).values()),
            np.roll(shares["pitch_class"], -key_note),
            shares["interval"][_OCTAVE],
            shares["length"],
            shares["onset_interval"],
            shares["position"].reshape(-1, POSITIONS_PER_BEAT).sum(0),
            shares["velocity"].reshape(8, -1).sum(1),
            [_finite_mean(np.abs(bars - _finite_mean(bars))) for bars in series],
            [_finite_mean(np.abs(np.diff(bars))) for bars in series],
        ]
    )


def _key_note(excerpt: Excerpt) -> int:
    tuned = excerpt.rows[:, PITCH] < DRUM_PITCH_OFFSET
    return metrics.key_note(metrics.pitch_class_weights(excerpt.rows[tuned, PITCH], excerpt.length[tuned]))


def _finite_mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else np.nan


def out_of_fold(
    real: np.ndarray, written: np.ndarray, sources: Sequence[str], groups: Sequence[str] | None = None
) -> np.ndarray:
    """How likely each excerpt is written rather than real, says a classifier that saw neither of the song's excerpts.

    `real` and `written` are vectors (n, d), row i of both of song i; `sources` (n,) names each song's source, and all
    sources weigh the same. Songs of one of `groups` (n,), versions of one piece, are never on both sides. Returns
    (SEEDS, n, 2): for each of several divisions of the songs into FOLDS, the real and the written one's likelihood.
    Raises BadInput for fewer groups than FOLDS or arrays that do not match, MissingPart without scikit-learn.
    """
    count = len(real)
    if not (
        np.shape(real) == np.shape(written) and count == len(sources) == len(sources if groups is None else groups)
    ):
        raise BadInput(
            f"The discriminator compares song by song, but got vectors of shapes {np.shape(real)} and "
            f"{np.shape(written)} and {len(sources)} sources; give one real and one written excerpt for every song."
        )
    group = np.unique(np.arange(count) if groups is None else np.asarray(groups, str), return_inverse=True)[1]
    kinds = len(np.unique(group))
    if kinds < FOLDS:
        raise BadInput(
            f"The discriminator needs songs of at least {FOLDS} groups to learn, but has {kinds}; add songs."
        )
    classifier = boosting()
    both, weight = np.stack([real, written], 1), np.repeat(equal_weights(sources) * count, 2)
    labels = np.tile([0, 1], count)
    scores = np.zeros((SEEDS, count, 2))
    for seed in range(SEEDS):
        fold = _folds(group, np.asarray(sources, str), seed)
        for number in range(FOLDS):
            held = fold == number
            seen = np.repeat(~held, 2)
            judge = classifier(
                max_iter=120, learning_rate=0.06, max_leaf_nodes=8, min_samples_leaf=8, l2_regularization=1.0,
                max_features=0.3, early_stopping=False, random_state=seed,
            )  # fmt: skip
            told = np.isfinite(both[~held]).any((0, 1))  # of nothing nothing is learned, and scikit-learn stumbles
            if not told.any():
                scores[seed, held] = 0.5
                continue
            learned, asked = (both[part][..., told].reshape(-1, told.sum()) for part in (~held, held))
            judge.fit(learned, labels[seen], sample_weight=weight[seen])
            scores[seed, held] = judge.predict_proba(asked)[:, 1].reshape(-1, 2)
    return scores


def boosting() -> Any:
    """The classifier. Raises MissingPart without scikit-learn."""
    try:
        return importlib.import_module("sklearn.ensemble").HistGradientBoostingClassifier
    except ImportError as error:
        raise MissingPart(
            "The discriminator needs scikit-learn, which is not installed; run `pip install 'midiex[evaluate]'`."
        ) from error


def _folds(group: np.ndarray, sources: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each song (n,): groups in random order, source by source, are dealt out one by one, so that every
    fold has its share of every source."""
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    first = np.unique(group, return_index=True)[1]  # one song of each group, whose source counts
    dealt = order[np.argsort(sources[first][order], kind="stable")]
    fold = np.empty(len(dealt), np.int64)
    fold[dealt] = np.arange(len(dealt)) % FOLDS
    return fold[group]


def auc(scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """How often a written excerpt is rated likelier to be written than a real one is; ties count half.

    `scores` (seeds, n, 2) as of `out_of_fold`, averaged over seeds; `weights` (n,) of the songs. To bootstrap, draw
    songs along the second axis.
    """
    weight = np.ones(scores.shape[1]) if weights is None else np.asarray(weights, np.float64)
    pairs = np.outer(weight, weight)
    wins = [np.sign(written[:, None] - real[None, :]) for real, written in scores.transpose(0, 2, 1)]
    return float(np.mean([0.5 + 0.5 * (pairs * win).sum() / pairs.sum() for win in wins]))


def discriminate(
    real: Sequence[Excerpt],
    written: Sequence[Excerpt],
    sources: Sequence[str],
    prompts: Sequence[Excerpt] | None = None,
    relative: bool = False,
    groups: Sequence[str] | None = None,
) -> float:
    """AUC of telling `written` from `real` excerpts of the same songs; each source weighs the same.

    With `relative` the classifier sees each as a difference from the song's prompt, which must then be given. Raises
    as `out_of_fold`, and BadInput when prompts are missing.
    """
    known: Sequence[Excerpt | None] = [None] * len(real)
    if relative:
        known = prompts or []
    if not len(real) == len(written) == len(known):
        raise BadInput(
            f"The discriminator compares song by song, but got {len(real)} real and {len(written)} written excerpts"
            f"{f' and {len(known)} prompts' if relative else ''}; give one of each for every song."
        )
    seen, judged = (
        np.array([vector(one, prompt) for one, prompt in zip(side, known, strict=True)]) for side in (real, written)
    )
    return auc(out_of_fold(seen, judged, sources, groups), equal_weights(sources))
