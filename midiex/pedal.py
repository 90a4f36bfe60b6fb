"""Sustain pedal for new notes, where the song's track uses it: spans of the pedal, and the keys let go under it.

The model reads and writes notes as long as they sound, pedal included. Here that sound is shared out again between keys
and pedal as the song does it. Knows notes in ticks; knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import tokens
from .newnotes import NewNotes
from .score import Lane, Song, lane_of
from .splice import Pedals
from .timeline import Timeline

HABIT_BARS = 16  # over which the use of the pedal is measured

USED_SHARE = 0.25  # of the time the pedal must be down in the song for new music to use it
CHANGE_SHARE = 0.6  # of what sounds must end within TOGETHER_BEATS for the pedal to change there
TOGETHER_BEATS = 0.25
LIFT_BEATS = 1 / 12  # the pedal is up this long after a change, as feet need
LONGEST_BEATS = 16.0


@dataclass(frozen=True)
class Habit:
    """How a song's track is pedalled."""

    key_share: float  # typical length of a key's press as a share of how long its note sounds


def under_pedal(
    song: Song, line: Timeline, notes: NewNotes, standing: frozenset[int] = frozenset()
) -> tuple[NewNotes, Pedals]:
    """New notes, given as long as they sound, with their keys let go under new spans of the pedal, on the lanes whose
    voices use it in the song before. Lanes with a voice of `standing` keep the pedal they have."""
    until, since = line.start_tick, int(song.grid.ticks[max(0, line.before - HABIT_BARS)])
    lanes: dict[Lane, list[int]] = {}
    for index, voice in enumerate(song.voices):
        lanes.setdefault(lane_of(song.midi, voice.track, voice.channel), []).append(index)
    sounding = tokens.notes_of(song.score)
    pressed = np.concatenate([track.notes.numpy()["duration"] for track in song.score.tracks])
    alike: dict[bytes, list[tuple[Lane, np.ndarray, Habit]]] = {}  # lanes pedalled by one foot: two hands of a piano
    for lane, voices in lanes.items():
        new = np.isin(notes.voice, voices)
        mine = np.isin(sounding.track, voices) & (sounding.start_ticks >= since) & (sounding.start_ticks < until)
        pedal = song.score.tracks[voices[0]].pedals.numpy()
        theirs = np.stack([pedal["time"], pedal["time"] + pedal["duration"]], 1).clip(since, until)
        used = habit(pressed[mine], sounding.duration_ticks[mine], theirs, until - since)
        if used is not None and new.any() and not standing & set(voices):
            alike.setdefault(theirs.tobytes(), []).append((lane, new, used))
    sounds, duration = notes.duration_ticks, notes.duration_ticks.copy()
    pedals: Pedals = {}
    for hands in alike.values():
        both = np.any([new for _, new, _ in hands], axis=0)
        down_up = spans(notes.start_ticks[both], sounds[both], song.grid.tpq, line.end_tick)
        for lane, new, used in hands:
            pedals[lane] = down_up
            short = let_go(notes.start_ticks[new], sounds[new], down_up, used)
            last = notes.start_ticks[new] + sounds[new] == line.end_tick  # nobody lets go of the last chord too soon
            duration[new] = np.where(last, sounds[new], short)
    return replace(notes, duration_ticks=duration), pedals


def habit(key: np.ndarray, sounding: np.ndarray, down_up: np.ndarray, span_ticks: int) -> Habit | None:
    """The habit behind notes (n,) whose keys are held for `key` and which sound for `sounding` ticks, with pedal spans
    `down_up` (m, 2), over `span_ticks` of music; None where the pedal is no habit."""
    down_ticks = int((down_up[:, 1] - down_up[:, 0]).sum()) if len(down_up) else 0
    held = sounding > key
    if down_ticks < USED_SHARE * span_ticks or not held.any():
        return None
    return Habit(float(np.median(key[held] / sounding[held])))


def spans(start: np.ndarray, sounding: np.ndarray, tpq: float, end_tick: int) -> list[tuple[int, int]]:
    """Pedal spans (down, up) under notes (n,) of the given starts and sounding lengths, none past `end_tick`.

    The pedal changes where a new note begins and most of what sounds ends: with the harmony, as pianists do.
    """
    if len(start) == 0:
        return []
    order = np.argsort(start, kind="stable")
    start, end = start[order], (start + sounding)[order]
    together = TOGETHER_BEATS * tpq
    changes = []
    for tick in np.unique(start):
        heard = (start < tick) & (end > tick - together)
        ending = heard & (end <= tick + together)
        if not heard.any() or ending.sum() >= CHANGE_SHARE * heard.sum():
            changes.append(int(tick))
    found = []
    lift = max(1, round(LIFT_BEATS * tpq))
    for tick, following in zip(changes, [*changes[1:], end_tick], strict=True):
        mine = (start >= tick) & (start < following)
        last = min(int(end[mine].max()), following, end_tick, int(tick + LONGEST_BEATS * tpq))
        if last - (tick + lift) >= lift:
            found.append((tick + lift, last))
    return found


def let_go(start: np.ndarray, sounding: np.ndarray, down_up: list[tuple[int, int]], habit: Habit) -> np.ndarray:
    """Lengths of the keys' presses in ticks, (n,): shorter than the sound where the pedal holds it to its end."""
    if not down_up:
        return sounding
    down, up = np.array(down_up).T
    end = start + sounding
    span = np.searchsorted(down, end, side="left") - 1  # the latest span begun before the sound ends
    held = (span >= 0) & (end <= up[span.clip(0)])
    # not let go before the pedal is down, which would cut the sound
    key = np.maximum(np.round(sounding * habit.key_share).astype(np.int64), down[span.clip(0)] - start + 1)
    return np.where(held, np.clip(key, 1, sounding), sounding)
