"""What a stretch of music is like, in figures: histograms, scalars, and series over its bars.

Scalars that muspy.metrics has are defined as there, to the digit, with a beat of 24 steps; where muspy wants one meter
for the whole song, each bar counts with its own length. The histograms and matrices are those of Yang and Lerch (On the
evaluation of generative models in music, 2018; mgeval), for several voices. Knows excerpts; compares nothing.

A voice is one (program, instance). A moment of a voice is a position of 1/12 beat at which it plays: the notes of a
chord share it. "Tuned" notes are all but drums.
"""

from __future__ import annotations

import numpy as np

from .. import tokens
from ..tokens import BAR, DRUM_PITCH_OFFSET, INSTANCE, PITCH, POSITION, PROGRAM, VELOCITY
from .excerpts import STEPS_PER_BEAT, Excerpt

# In steps: mgeval's twelve (whole, half, quarter, eighth, sixteenth, dotted and triplet ones), and a 32nd, two bars and
# four bars of 4/4, so that neither a drum's tick nor a note that hangs passes for something else.
LENGTH_CLASSES = np.array([3, 6, 8, 9, 12, 16, 18, 24, 32, 36, 48, 72, 96, 192, 384])
MOST_INTERVAL = 24  # semitones; wider leaps count as this
# The difference between two bars that is nothing to speak of, for each series of `by_bar`, in its unit.
BAR_STEPS = {
    "notes": 0.5, "onsets": 0.5, "pitches": 0.5, "range": 1.0, "mean_pitch": 0.5, "polyphony": 0.1, "velocity": 2.0,
    "length_beats": 0.125,
}  # fmt: skip

_CLASS_BORDERS = np.sqrt(LENGTH_CLASSES[1:] * LENGTH_CLASSES[:-1])
_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
_SCALES = np.array([np.isin((np.arange(12) - root) % 12, mode) for mode in (_MAJOR, _MINOR) for root in range(12)])
_CHORD = 3  # muspy's polyphony rate asks for more than two pitches


def histograms(excerpt: Excerpt) -> dict[str, np.ndarray]:
    """Shares that sum to 1, or all zero where there is nothing to count; float64, the same shapes for every excerpt.

    pitch_class (12,) weighted by length, pitch_class_transition (12, 12) and length_transition (15, 15) of successive
    notes of a voice (of a chord upwards), pitch (128,), interval (49,) from one moment's highest note to the next's in
    semitones from -24 up, length (15,) and onset_interval (15,) in LENGTH_CLASSES, position (96,) in 1/12 beat since
    the bar line, velocity (32,), instrument (129,). Drums count in the last four of these.
    """
    rows = excerpt.rows
    tuned = _tuned(rows)
    pitch, length = rows[tuned, PITCH], excerpt.length[tuned]
    before, after = _successive(rows)
    intervals = _intervals(rows).clip(-MOST_INTERVAL, MOST_INTERVAL) + MOST_INTERVAL
    classes = _length_class(excerpt.length)
    kinds = len(LENGTH_CLASSES)
    pitch_pairs = 12 * (rows[before, PITCH] % 12) + rows[after, PITCH] % 12
    length_pairs = kinds * classes[before] + classes[after]
    counts = {
        "pitch_class": np.bincount(pitch % 12, weights=length, minlength=12),
        "pitch_class_transition": np.bincount(pitch_pairs, minlength=144).reshape(12, 12),
        "pitch": np.bincount(pitch, minlength=128),
        "interval": np.bincount(intervals, minlength=2 * MOST_INTERVAL + 1),
        "length": np.bincount(classes[tuned], minlength=kinds),
        "length_transition": np.bincount(length_pairs, minlength=kinds**2).reshape(kinds, -1),
        "onset_interval": np.bincount(_length_class(_onset_intervals(excerpt)), minlength=kinds),
        "position": np.bincount(rows[:, POSITION], minlength=tokens.FIELD_SIZES[POSITION]),
        "velocity": np.bincount(rows[:, VELOCITY], minlength=tokens.FIELD_SIZES[VELOCITY]),
        "instrument": np.bincount(rows[:, PROGRAM], minlength=tokens.FIELD_SIZES[PROGRAM]),
    }
    return {name: count / max(count.sum(), 1) for name, count in counts.items()}


def scalars(excerpt: Excerpt) -> dict[str, float]:
    """One figure each; NaN where there is nothing to measure (no tuned note, a single bar), counts are then 0.

    Of muspy.metrics: pitch_count and pitch_class_count (n_pitches_used, n_pitch_classes_used), pitch_range (0 without
    tuned notes, where muspy has -127 when there are drums), pitch_entropy and pitch_class_entropy in bits,
    scale_consistency, polyphony, polyphony_rate, empty_beat_rate, empty_measure_rate, groove_consistency. All but the
    last three leave out drums.
    Of mgeval: mean_interval (absolute semitones, see `histograms`), notes_per_s, mean_onset_interval_beats (from moment
    to moment of a voice), mean_length_beats. And velocity_mean and velocity_spread (standard deviation) in MIDI units,
    instruments (how many programs), drum_share of the notes, and silence: the share of the excerpt's beats in which
    nothing sounds, up to its last bar line, of which muspy sees nothing behind the last note.
    """
    rows = excerpt.rows
    tuned = _tuned(rows)
    pitch = rows[tuned, PITCH]
    classes = np.bincount(pitch % 12, minlength=12)
    velocity = rows[:, VELOCITY] * tokens.VELOCITY_STEP + tokens.VELOCITY_STEP / 2
    return {
        "pitch_count": float(len(np.unique(pitch))),
        "pitch_class_count": float(np.count_nonzero(classes)),
        "pitch_range": float(np.ptp(pitch)) if len(pitch) else 0.0,
        "mean_interval": _mean(np.abs(_intervals(rows))),
        "notes_per_s": len(rows) / excerpt.seconds if excerpt.seconds > 0 else 0.0,
        "mean_onset_interval_beats": _mean(_onset_intervals(excerpt)) / STEPS_PER_BEAT,
        "mean_length_beats": _mean(excerpt.length[tuned]) / STEPS_PER_BEAT,
        "pitch_class_entropy": _entropy_bits(classes),
        "pitch_entropy": _entropy_bits(np.bincount(pitch, minlength=128)),
        "scale_consistency": float((_SCALES @ classes).max() / len(pitch)) if len(pitch) else np.nan,
        **_polyphony(excerpt),
        **_emptiness(excerpt),
        "groove_consistency": _groove_consistency(excerpt),
        "velocity_mean": _mean(velocity),
        "velocity_spread": float(velocity.std()) if len(rows) else np.nan,
        "instruments": float(len(np.unique(rows[:, PROGRAM]))),
        "drum_share": _mean(~tuned),
    }


def by_bar(excerpt: Excerpt) -> dict[str, np.ndarray]:
    """Series over the bars, each shape (bars,) float64; a mean of nothing is NaN.

    notes, onsets (moments at which any voice plays), velocity (mean), and of tuned notes, NaN in bars without any:
    pitches (distinct), range in semitones, mean_pitch, length_beats (mean), polyphony (mean number of pitches while
    any sounds, notes that ring on from earlier bars included).
    """
    rows, bars = excerpt.rows, excerpt.bars
    bar, tuned = rows[:, BAR], _tuned(rows)
    pitch, pitch_bar = rows[tuned, PITCH], bar[tuned]
    moments = np.unique(bar.astype(np.int64) * 128 + rows[:, POSITION]) // 128
    distinct = np.unique(pitch_bar.astype(np.int64) * 128 + pitch) // 128
    low, high = np.full(bars, np.inf), np.full(bars, -np.inf)
    np.minimum.at(low, pitch_bar, pitch)
    np.maximum.at(high, pitch_bar, pitch)
    has_tuned = np.isfinite(low)
    sounding = _sounding(excerpt)[: excerpt.bar_starts[-1]].sum(1)
    bar_of_step = np.repeat(np.arange(bars), np.diff(excerpt.bar_starts))[: len(sounding)]
    return {
        "notes": np.bincount(bar, minlength=bars).astype(float),
        "onsets": np.bincount(moments, minlength=bars).astype(float),
        "velocity": _means(bar, rows[:, VELOCITY] * tokens.VELOCITY_STEP + tokens.VELOCITY_STEP / 2, bars),
        "pitches": np.where(has_tuned, np.bincount(distinct, minlength=bars), np.nan),
        "range": np.where(has_tuned, np.where(has_tuned, high, 0) - np.where(has_tuned, low, 0), np.nan),
        "mean_pitch": _means(pitch_bar, pitch, bars),
        "length_beats": _means(pitch_bar, excerpt.length[tuned] / STEPS_PER_BEAT, bars),
        "polyphony": _means(bar_of_step[sounding > 0], sounding[sounding > 0], bars),
    }


# ---- notes in their voices ------------------------------------------------------------------------------------------


def _tuned(rows: np.ndarray) -> np.ndarray:
    return rows[:, PITCH] < DRUM_PITCH_OFFSET


def _in_voices(rows: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows `chosen` (n,) bool voice by voice, in time and upwards, and the voice of each."""
    index = np.flatnonzero(chosen)
    voice = rows[index, PROGRAM] * tokens.MAX_INSTANCES + rows[index, INSTANCE]
    order = np.argsort(voice, kind="stable")
    return index[order], voice[order]


def _successive(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of tuned notes and of the note that follows each in its voice."""
    index, voice = _in_voices(rows, _tuned(rows))
    same = voice[1:] == voice[:-1]
    return index[:-1][same], index[1:][same]


def _moments(rows: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the highest note of each moment of each voice, and whether the next moment is of the same voice."""
    index, voice = _in_voices(rows, chosen)
    moment = rows[index, BAR].astype(np.int64) * 128 + rows[index, POSITION]
    last = np.append((voice[1:] != voice[:-1]) | (moment[1:] != moment[:-1]), True)[: len(index)]
    index, voice = index[last], voice[last]
    return index, voice[1:] == voice[:-1]


def _intervals(rows: np.ndarray) -> np.ndarray:
    """Semitones from each moment's highest note to the next one's in the same voice."""
    index, same = _moments(rows, _tuned(rows))
    return np.diff(rows[index, PITCH])[same]


def _onset_intervals(excerpt: Excerpt) -> np.ndarray:
    """Steps from each moment of a voice to its next, drums included, at least 1."""
    index, same = _moments(excerpt.rows, np.ones(len(excerpt.rows), bool))
    return np.maximum(np.diff(excerpt.onset[index])[same], 1)


def _length_class(steps: np.ndarray) -> np.ndarray:
    """Index of the nearest of LENGTH_CLASSES, by ratio."""
    return np.searchsorted(_CLASS_BORDERS, steps)


# ---- time -----------------------------------------------------------------------------------------------------------


def _measure_at(excerpt: Excerpt, step: np.ndarray) -> np.ndarray:
    """The measure of each step; behind the excerpt's last bar, where notes ring on, measures are as long as that."""
    starts = excerpt.bar_starts
    inside = np.searchsorted(starts[:-1], step, side="right") - 1
    return np.where(step < starts[-1], inside, excerpt.bars + (step - starts[-1]) // (starts[-1] - starts[-2]))


def _sounding(excerpt: Excerpt) -> np.ndarray:
    """Which tuned pitch sounds at which step up to the last release of any note, drums included; (steps, 128) bool."""
    tuned = _tuned(excerpt.rows)
    onset, pitch = excerpt.onset[tuned], excerpt.rows[tuned, PITCH]
    end = int((excerpt.onset + excerpt.length).max(initial=0))
    change = np.zeros((end + 1, 128), np.int16)
    np.add.at(change, (onset, pitch), 1)
    np.add.at(change, (onset + excerpt.length[tuned], pitch), -1)
    return np.cumsum(change, 0, np.int16)[:end] > 0


def _polyphony(excerpt: Excerpt) -> dict[str, float]:
    voices = _sounding(excerpt).sum(1)
    playing = np.count_nonzero(voices)
    return {
        "polyphony": float(voices.sum() / playing) if playing else np.nan,
        "polyphony_rate": _mean(voices >= _CHORD),
    }


def _emptiness(excerpt: Excerpt) -> dict[str, float]:
    onset, end = excerpt.onset, excerpt.onset + excerpt.length
    if not len(onset):
        return {"empty_beat_rate": np.nan, "empty_measure_rate": np.nan, "silence": 1.0}
    measures = _measure_at(excerpt, onset), _measure_at(excerpt, end)
    beats = max(1, round(float(excerpt.bar_beats.sum())))
    heard = _touched(onset // STEPS_PER_BEAT, (end - 1) // STEPS_PER_BEAT)[:beats]
    return {  # in muspy a note that ends on a beat's or measure's border touches the next one
        "empty_beat_rate": 1 - float(_touched(onset // STEPS_PER_BEAT, end // STEPS_PER_BEAT).mean()),
        "empty_measure_rate": 1 - float(_touched(*measures).mean()),
        "silence": 1 - np.count_nonzero(heard) / beats,
    }


def _touched(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Which cells lie in any of the spans from `first` to `last`, both included; shape (greatest last + 1,) bool."""
    change = np.bincount(first, minlength=last.max() + 2) - np.bincount(last + 1, minlength=last.max() + 2)
    return np.cumsum(change)[:-1] > 0


def _groove_consistency(excerpt: Excerpt) -> float:
    """One less the share of a measure's steps where it and the next differ in having an onset (Wu and Yang, 2020).

    Of two measures that differ in length the shorter is silent to the other's end.
    """
    if not len(excerpt.rows):
        return np.nan
    measures = int(_measure_at(excerpt, (excerpt.onset + excerpt.length).max()[None])[0]) + 1
    if measures < 2:
        return np.nan
    starts, lengths = excerpt.bar_starts[:-1], np.diff(excerpt.bar_starts)
    beyond = max(0, measures - excerpt.bars)
    lengths = np.append(lengths, np.full(beyond, lengths[-1]))[:measures]
    starts = np.append(starts, excerpt.bar_starts[-1] + np.arange(beyond) * lengths[-1])
    measure = _measure_at(excerpt, excerpt.onset)
    grooves = np.zeros((measures, lengths.max()), bool)
    grooves[measure, excerpt.onset - starts[measure]] = True
    differing = np.count_nonzero(grooves[1:] != grooves[:-1])
    return 1 - differing / float(np.maximum(lengths[1:], lengths[:-1]).sum())


# ---- numbers --------------------------------------------------------------------------------------------------------


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _means(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    """Mean of the values (n,) of each group, shape (groups,); NaN for a group without any."""
    count = np.bincount(group, minlength=groups)
    total = np.bincount(group, weights=values, minlength=groups)
    return np.divide(total, count, out=np.full(groups, np.nan), where=count > 0)


def _entropy_bits(counts: np.ndarray) -> float:
    """NaN without any counts."""
    if not counts.sum():
        return np.nan
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())
