"""Notes as rows of small integers, one row a note: the language the model reads and writes.

Array operations over symusic's note arrays (MidiTok's own Octuple walks Python objects and manages a tenth of the
files a second); `NoteRowTokenizer` puts them behind MidiTok's interface. Knows scores and bar grids; knows no model.

A row: bar, position, micro-offset, program, instance, pitch, duration, velocity.
- time: `bar` counts from the start of whatever is encoded; `position` is 1/12 beat inside the bar; `micro` is the
  rest in 1/96 beat (-4..3), which keeps the feel of playing that is off the grid;
- voice: `program` 0-127 or 128 for drums, and `instance`, which tells apart several tracks of one program;
- pitch: 0-127, drums at 128-255, so that a drum is never mistaken for a note;
- duration: one of DURATIONS, in 1/24 beat; velocity: 32 bins.
Rows are sorted by (bar, position, program, instance, pitch) and no two rows agree in these five.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import symusic

from .grid import POSITIONS_PER_BEAT, BarGrid, TempoMap, bar_grid

BAR, POSITION, MICRO, PROGRAM, INSTANCE, PITCH, DURATION, VELOCITY = range(8)
FIELDS = ("bar", "position", "micro", "program", "instance", "pitch", "duration", "velocity")
# In which a note's fields are decided; the last two are of the next note.
HEAD_ORDER = (PROGRAM, INSTANCE, PITCH, DURATION, VELOCITY, MICRO, BAR, POSITION)

MAX_CHUNK_BARS = 16
MICROS_PER_POSITION = 8
MICRO_PER_BEAT = POSITIONS_PER_BEAT * MICROS_PER_POSITION  # 96
MICRO_CENTER = MICROS_PER_POSITION // 2  # the stored value of "exactly on the position"
DRUM_PROGRAM = 128
MAX_INSTANCES = 64  # tracks of one program, or drum tracks, that stay apart
DRUM_PITCH_OFFSET = 128
VELOCITY_STEP = 4

# In 1/24 beat: every step up to an eighth note, then coarser, up to eight bars of 4/4.
DURATIONS = np.array(
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 18, 20, 21, 22, 23, 24, 27, 30, 32, 36, 40, 44, 48, 54, 60, 64,
     68, 72, 80, 84, 90, 96, 108, 120, 144, 168, 192, 240, 288, 384, 480, 576, 768]
)  # fmt: skip
DURATIONS_PER_BEAT = 24
FIELD_SIZES = (MAX_CHUNK_BARS, 8 * POSITIONS_PER_BEAT, MICROS_PER_POSITION, 129, MAX_INSTANCES, 256, len(DURATIONS), 32)

_NEAREST_DURATION = np.abs(np.log(np.arange(DURATIONS[-1] + 1).clip(0.5)[:, None]) - np.log(DURATIONS)[None, :]).argmin(
    1
)  # duration in 1/24 beat -> nearest index


@dataclass(frozen=True)
class Notes:
    """Parallel integer arrays, shape (n,). `track` indexes the tracks of the score they came from."""

    track: np.ndarray
    start_ticks: np.ndarray
    duration_ticks: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray

    def __len__(self) -> int:
        return len(self.track)


def voice_ids(score: symusic.Score) -> np.ndarray:
    """(program, instance) of each track, shape (tracks, 2): the k-th track of a program is its instance k.

    Past MAX_INSTANCES tracks of one program share the last instance.
    """
    seen: dict[int, int] = {}
    ids = []
    for track in score.tracks:
        program = DRUM_PROGRAM if track.is_drum else track.program
        ids.append((program, min(seen.get(program, 0), MAX_INSTANCES - 1)))
        seen[program] = seen.get(program, 0) + 1
    return np.array(ids, np.int64).reshape(-1, 2)


def notes_of(score: symusic.Score) -> Notes:
    """All notes of a score, durations held by the sustain pedal included in their own."""
    parts = []
    for index, track in enumerate(score.tracks):
        raw = track.notes.numpy()
        start, duration = raw["time"].astype(np.int64), raw["duration"].astype(np.int64)
        pitch = raw["pitch"].astype(np.int64)
        if len(track.pedals) and not track.is_drum:
            duration = _hold_with_pedal(start, duration, pitch, track.pedals.numpy())
        parts.append((np.full(len(start), index, np.int64), start, duration, pitch, raw["velocity"].astype(np.int64)))
    if not parts:
        return Notes(*(np.zeros(0, np.int64) for _ in range(5)))
    return Notes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _hold_with_pedal(start: np.ndarray, duration: np.ndarray, pitch: np.ndarray, pedals: dict) -> np.ndarray:
    """Durations up to the pedal's release, or to the next stroke of the same key. Shapes (n,)."""
    down, up = pedals["time"].astype(np.int64), (pedals["time"] + pedals["duration"]).astype(np.int64)
    release = start + duration
    i = np.searchsorted(down, release, side="right") - 1
    held = (i >= 0) & (release < up[i.clip(0)])
    release = np.where(held, up[i.clip(0)], release)
    order = np.lexsort((start, pitch))
    next_same = np.full(len(start), np.iinfo(np.int64).max)
    same = pitch[order[1:]] == pitch[order[:-1]]
    next_same[order[:-1]] = np.where(same, start[order[1:]], next_same[order[:-1]])
    extended = np.minimum(release, next_same) - start
    return np.maximum(extended, duration)


def score_grid(score: symusic.Score, spare_ticks: int = 0) -> BarGrid:
    """The score's normalised bars, up to `spare_ticks` after its last note's release."""
    tempo = score_tempo(score)
    meters = [(int(m.time), int(m.numerator), int(m.denominator)) for m in score.time_signatures]
    return bar_grid(meters, tempo, int(score.end()) + spare_ticks)


def score_tempo(score: symusic.Score) -> TempoMap:
    raw = score.tempos.numpy()
    return TempoMap.build(score.tpq, raw["time"], raw["mspq"])


def encode(notes: Notes, voices: np.ndarray, grid: BarGrid) -> np.ndarray:
    """Rows of all notes, shape (n', 8) int32, n' <= n: of notes that agree in all but length the longest stays.

    `bar` is the index in `grid`. `voices` (tracks, 2) is as of `voice_ids`.
    """
    if len(notes) == 0:
        return np.zeros((0, 8), np.int32)
    tpq = grid.tpq
    bar = grid.bar_at(notes.start_ticks)
    bar_units = np.round(np.diff(grid.ticks) * MICRO_PER_BEAT / tpq).astype(np.int64)  # bar length in 1/96 beat
    unit = np.round((notes.start_ticks - grid.ticks[bar]) * MICRO_PER_BEAT / tpq).astype(np.int64)
    position = (unit + MICRO_CENTER) // MICROS_PER_POSITION
    pushed = position * MICROS_PER_POSITION >= bar_units[bar]  # rounds into the next bar
    movable = pushed & (bar + 1 < len(grid))
    unit = np.where(movable, unit - bar_units[bar], unit)
    bar = np.where(movable, bar + 1, bar)
    position = np.where(movable, 0, np.where(pushed, (bar_units[bar] - 1) // MICROS_PER_POSITION, position))
    position = position.clip(0, FIELD_SIZES[POSITION] - 1)
    micro = (unit - position * MICROS_PER_POSITION + MICRO_CENTER).clip(0, MICROS_PER_POSITION - 1)

    voice = voices[notes.track]
    pitch = notes.pitch.clip(0, 127) + np.where(voice[:, 0] == DRUM_PROGRAM, DRUM_PITCH_OFFSET, 0)
    length = np.round(notes.duration_ticks * DURATIONS_PER_BEAT / tpq).astype(np.int64).clip(0, DURATIONS[-1])
    duration = _NEAREST_DURATION[length]
    velocity = (notes.velocity // VELOCITY_STEP).clip(0, FIELD_SIZES[VELOCITY] - 1)
    rows = np.stack([bar, position, micro, voice[:, 0], voice[:, 1], pitch, duration, velocity], 1).astype(np.int32)
    return sort_rows(rows)


def sort_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (n, 8) in canonical order; of rows that agree in onset, voice and pitch the longest is kept."""
    key = row_key(rows)
    order = np.lexsort((-rows[:, DURATION], key))
    key = key[order]
    first = np.append(True, key[1:] != key[:-1]) if len(key) else np.zeros(0, bool)
    return rows[order[first]]


def moved(rows: np.ndarray, bars: int | np.integer) -> np.ndarray:
    """A copy of rows (n, 8), so many bars later."""
    rows = rows.copy()
    rows[:, BAR] += bars
    return rows


def row_key(rows: np.ndarray) -> np.ndarray:
    """One int64 a row that sorts as (bar, position, program, instance, pitch)."""
    r = rows.astype(np.int64)
    voice = ((r[:, BAR] * 128 + r[:, POSITION]) * 256 + r[:, PROGRAM]) * MAX_INSTANCES + r[:, INSTANCE]
    return voice * FIELD_SIZES[PITCH] + r[:, PITCH]


def decode(rows: np.ndarray, voices: np.ndarray, grid: BarGrid, first_bar: int = 0) -> Notes:
    """Notes of rows whose bar 0 is bar `first_bar` of `grid`; `track` is the first track whose voice the row names.

    Rows of a voice that no track has are left out.
    """
    rows = np.asarray(rows, np.int64)
    track_of = np.full((FIELD_SIZES[PROGRAM], MAX_INSTANCES), -1, np.int64)
    for index in range(len(voices) - 1, -1, -1):
        track_of[voices[index, 0], voices[index, 1]] = index
    track = track_of[rows[:, PROGRAM], rows[:, INSTANCE]]
    rows, track = rows[track >= 0], track[track >= 0]
    unit = rows[:, POSITION] * MICROS_PER_POSITION + rows[:, MICRO] - MICRO_CENTER
    start = grid.ticks[(rows[:, BAR] + first_bar).clip(0, len(grid))] + np.round(unit * grid.tpq / MICRO_PER_BEAT)
    duration = np.round(DURATIONS[rows[:, DURATION]] * grid.tpq / DURATIONS_PER_BEAT).clip(1)
    pitch = rows[:, PITCH] % DRUM_PITCH_OFFSET
    velocity = (rows[:, VELOCITY] * VELOCITY_STEP + VELOCITY_STEP // 2).clip(1, 127)
    return Notes(track, start.astype(np.int64).clip(0), duration.astype(np.int64), pitch, velocity)
