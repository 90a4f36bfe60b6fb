"""What a plan is made from: the song's own bars and the phrases planned so far, and what plays in any span of them.

Knows the song's form and planned phrases; knows no shelf and no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .form_facts import SongForm
from .form_plan import SAME, PlannedPhrase
from .phrases import bar_units
from .roles import CHORDS, DRUMS, ROLES
from .tokens import BAR, INSTANCE, PITCH, PROGRAM, VELOCITY, VELOCITY_STEP

_SLACK = 1.8  # how far beyond its own range a song's density may be led
USUAL = (4.0, 80.0, 60.0)  # notes a second, velocity and pitch where there is no music to tell


@dataclass(frozen=True)
class Span:
    """What a stretch of bars is like."""

    plays: np.ndarray  # (voices,) bool
    density: float  # notes a second
    loudness: float  # mean velocity
    register: float  # mean pitch of tuned notes


@dataclass
class Material:
    """The song as bars and phrases, and the plan as far as it goes. Bars count from the result's first."""

    song: SongForm | None  # of the bars from `offset` on; None where there is no music before
    offset: int
    units: np.ndarray  # (bars,) lengths of all bars of the result
    roles: np.ndarray  # (voices,) index in ROLES
    playing: np.ndarray  # (voices,) bool: may play in new music
    counts: np.ndarray  # (bars + 1, voices) running sums of notes
    sums: np.ndarray  # (bars + 1, 4) of velocity, notes, tuned pitch, tuned notes
    clock: np.ndarray  # (bars + 1,) seconds
    planned: list[PlannedPhrase] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        song: SongForm | None,
        offset: int,
        rows: np.ndarray,
        voices: np.ndarray,
        playing: Iterable[int],
        beats: np.ndarray,
        seconds: np.ndarray,
    ) -> Material:
        """Of the song's rows (n, 8); `beats` and `seconds` (bars,) of all bars of the result."""
        bars, known = len(beats), {(int(p), int(i)): k for k, (p, i) in reversed(list(enumerate(voices)))}
        table = np.full((256, 256), -1)
        for (program, instance), number in known.items():
            table[program, instance] = number
        voice = table[rows[:, PROGRAM], rows[:, INSTANCE]]
        rows, voice = rows[voice >= 0], voice[voice >= 0]
        counts = np.zeros((bars + 1, len(voices)))
        np.add.at(counts, (rows[:, BAR] + 1, voice), 1)
        roles = song.roles if song else np.array([_role(int(program)) for program, _ in voices], np.int64)
        tuned = roles[voice] != DRUMS
        figures = np.column_stack(
            [rows[:, VELOCITY] * VELOCITY_STEP + VELOCITY_STEP / 2, np.ones(len(rows)), rows[:, PITCH] * tuned, tuned]
        )
        sums = np.zeros((bars + 1, 4))
        np.add.at(sums, rows[:, BAR] + 1, figures)
        may = np.zeros(len(voices), bool)
        may[[v for v in playing if 0 <= v < len(voices)]] = True
        clock = np.concatenate([[0.0], np.cumsum(np.maximum(seconds, 1e-3))])
        return cls(song, offset, bar_units(beats), roles, may, counts.cumsum(0), sums.cumsum(0), clock)

    def span(self, bar: int, bars: int) -> Span:
        """What bars [bar, bar + bars) are like: of the song by its notes, of new music by its plan."""
        if (phrase := self._planned_at(bar, bars)) is not None:
            plays = np.zeros(len(self.roles), bool)
            plays[list(phrase.voices)] = True
            return Span(plays, phrase.density, phrase.loudness, phrase.register)
        notes = self.counts[bar + bars] - self.counts[bar]
        velocity, count, pitch, tuned = self.sums[bar + bars] - self.sums[bar]
        _, usual_velocity, usual_pitch = self.usual
        return Span(
            notes > 0,
            float(count / (self.clock[bar + bars] - self.clock[bar])),
            float(velocity / count) if count else usual_velocity,
            float(pitch / tuned) if tuned else usual_pitch,
        )

    def _planned_at(self, bar: int, bars: int) -> PlannedPhrase | None:
        """The planned phrase in which most of a span lies."""
        middle = bar + (bars - 1) / 2
        if not self.planned or middle < self.planned[0].first_bar:
            return None
        return next((p for p in self.planned if p.first_bar <= middle < p.first_bar + p.bars), None)

    @cached_property
    def usual(self) -> tuple[float, float, float]:
        """The song's mean notes a second, velocity and pitch."""
        velocity, count, pitch, tuned = self.sums[-1]
        if not self.song or not count:
            return USUAL
        first, last = self.song.phrases[0].first_bar + self.offset, self.song.phrases[-1].end + self.offset
        density = (self.sums[last, 1] - self.sums[first, 1]) / (self.clock[last] - self.clock[first])
        return float(density) or USUAL[0], float(velocity / count), float(pitch / tuned) if tuned else USUAL[2]

    @cached_property
    def range(self) -> tuple[tuple[float, float], ...]:
        """Least and most of what phrases of the song that are not silent have: density, loudness, register."""
        usual = self.usual
        if not self.song or not self.song.plays.any():
            return tuple((0.5 * value, 1.5 * value) for value in usual)
        own = self.song.plays.any(1) & (self.song.notes_a_second > 0.1 * usual[0])
        figures = (self.song.notes_a_second, self.song.velocity, self.song.pitch)
        spans = [
            (float(f[own].min()), float(f[own].max())) if own.any() else (u, u)
            for f, u in zip(figures, usual, strict=True)
        ]
        return ((spans[0][0] / _SLACK, spans[0][1] * _SLACK), *spans[1:])

    def notes_by_role(self, bar: int, bars: int) -> np.ndarray:
        """About how many notes each role has in bars [bar, bar + bars), (4,)."""
        planned = self._planned_at(bar, bars)
        if planned is None:
            notes = self.counts[bar + bars] - self.counts[bar]
        else:
            notes = np.zeros(len(self.roles))
            notes[list(planned.voices)] = self.loads[list(planned.voices)]
        return np.bincount(self.roles, notes * self.playing, len(ROLES))

    def fits(self, source: int, bar: int, bars: int) -> bool:
        """Whether a phrase at `bar` can go back to bars [source, source + bars): they lie before it, their lengths are
        the same, something plays in them that may, and they are all of the song or of planned phrases."""
        if source < self.offset or source + bars > bar:
            return False
        if not np.array_equal(self.units[source : source + bars], self.units[bar : bar + bars]):
            return False
        planned = self._planned_at(source, bars)
        if planned is not None:
            return bool(planned.voices)
        return bool(((self.counts[source + bars] > self.counts[source]) & self.playing).any())

    def original(self, source: int, bars: int) -> int:
        """Where what is copied in bars [source, source + bars) stood first."""
        for _ in range(len(self.planned)):
            inside = [p for p in self.planned if p.first_bar <= source and source + bars <= p.first_bar + p.bars]
            if not inside or inside[0].kind != SAME or inside[0].source_bar is None:
                break
            source = inside[0].source_bar + source - inside[0].first_bar
        return source

    def shares(self, plays: np.ndarray) -> np.ndarray:
        """Share of each role's voices that play, (4,)."""
        return np.array(
            [plays[self.roles == role].mean() if (self.roles == role).any() else 0.0 for role in range(len(ROLES))]
        )

    @cached_property
    def presence(self) -> np.ndarray:
        """Share of the song's phrases in which each voice plays, (voices,)."""
        return self.song.plays.mean(0) if self.song and len(self.song.plays) else np.ones(len(self.roles))

    def voices(self, base: np.ndarray, shares: np.ndarray, rank: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Voices (voices,) bool that play when those of `base` are changed so that the `shares` (4,; nan: as they are)
        of each role's do: those of low `rank` (voices,) leave first, of high come first. Never none when any may
        play. Parts of a voice are rounded at random: forms have other numbers of voices."""
        plays = base & self.playing
        for role in range(len(ROLES)):
            own = np.flatnonzero((self.roles == role) & self.playing)
            if not len(own) or np.isnan(shares[role]):
                continue
            up = rng.uniform(0.55, 0.9) if len(own) == 1 else rng.uniform(0.1, 0.9)
            want = int(np.clip(np.floor(shares[role] * len(own) + up), 0, len(own)))
            order = own[np.argsort(-(rank[own] + 2.0 * plays[own]), kind="stable")]
            plays[own] = False
            plays[order[:want]] = True
        return self.some(plays, base)

    def some(self, plays: np.ndarray, base: np.ndarray) -> np.ndarray:
        """`plays`, or where that is none `base`, or the commonest voice that may play."""
        if plays.any() or not self.playing.any():
            return plays
        if (base & self.playing).any():
            return base & self.playing
        return np.arange(len(plays)) == np.where(self.playing, self.presence, -1).argmax()

    @cached_property
    def loads(self) -> np.ndarray:
        """Notes a second of each voice when it plays in the song, (voices,)."""
        if not self.song or not len(self.song.phrases):
            return np.full(len(self.roles), USUAL[0] / max(1, len(self.roles)))
        first, last = self.song.phrases[0].first_bar + self.offset, self.song.phrases[-1].end + self.offset
        a_second = (self.counts[last] - self.counts[first]) / (self.clock[last] - self.clock[first])
        return a_second / np.maximum(self.presence, 0.05)

    def load(self, plays: np.ndarray) -> float:
        """Notes a second that these voices (voices,) bool have together when they play in the song."""
        return float(self.loads[plays].sum()) or self.usual[0]


def _role(program: int) -> int:
    return DRUMS if program == 128 else CHORDS
