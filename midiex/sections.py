"""Names a song's sections: letters A, B, C … for its phrases, the same letter for what is the same section.

Knows phrases and how alike they are; knows no plan, no files and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np

from . import phrases
from .phrases import BarMatches, Phrase
from .roles import BASS, CHORDS, LEAD, roles_of, voice_roles
from .tokens import BAR, INSTANCE, PROGRAM

ALIKE = (0.5, 0.75)  # mean affinity from which two sections are the same one: at least, and enough in any song
_AS_WITHIN = 0.95  # of the affinity inside sections, which is as good
MOST_LETTERS = 8
_BORDER_COST = 0.55  # what a border must be worth, on a scale on which the strongest tenth lies at 1
_SHORT_COSTS = (0.0, 0.5, 0.1, 0.15)  # of a section of so many phrases; 4 and more cost nothing
_MOST_PHRASES = 12
_AROUND_BARS = 1  # a phrase may return so many bars off its grid


def letter(number: int) -> str:
    """Name of the n-th section, from 0: A to Z, then A2 and so on."""
    round_, place = divmod(number, 26)
    return ascii_uppercase[place] + (str(round_ + 1) if round_ else "")


def letter_number(name: str) -> int:
    """What `letter` makes the name of; KeyError for what is no such name."""
    place = ascii_uppercase.find(name[:1])
    if not name or place < 0 or (name[1:] and (not name[1:].isdecimal() or int(name[1:]) < 2)):
        raise KeyError(name)
    return place + 26 * (int(name[1:] or 1) - 1)


@dataclass(frozen=True)
class SongSections:
    """A song's phrases and the section of each, as numbers from 0 in the order in which sections first begin."""

    phrases: tuple[Phrase, ...]
    section: np.ndarray  # (phrases,)
    border: np.ndarray  # (phrases,) bool: a section begins here, be it the same one again

    @property
    def letters(self) -> list[str]:
        return [letter(int(number)) for number in self.section]


def song_sections(rows: np.ndarray, beats: np.ndarray, bar_s: np.ndarray) -> SongSections:
    """Sections of a song's rows (n, 8) on bars of `beats` quarter notes and `bar_s` seconds, (bars,) each.

    Of a song of more than `phrases.MOST_BARS` bars the first so many are looked at.
    """
    bars = min(len(bar_s), phrases.MOST_BARS)
    rows = rows[rows[:, BAR] < bars]
    role = roles_of(rows, voice_roles(rows))
    matches = BarMatches.of(rows, role, phrases.bar_units(beats[:bars]))
    cut = phrases.cut_phrases(matches, rows, bar_s[:bars])
    return find_sections(matches, rows, cut)


def find_sections(matches: BarMatches, rows: np.ndarray, cut: Sequence[Phrase]) -> SongSections:
    """The sections of phrases `cut` from the song whose rows (n, 8) and bars' `matches` are given.

    Borders between sections maximise, by dynamic programming, the change of texture and the beginnings and ends of
    parallel stretches (after Paulus, Müller and Klapuri's survey of structure analysis, 2010: novelty and repetition
    together); sections are then joined by average linkage of their aligned phrases.
    """
    if not cut:
        return SongSections((), np.zeros(0, np.int64), np.zeros(0, bool))
    texture = phrase_textures(rows, cut)
    affinity = phrase_affinity(matches, texture, cut)
    borders = _borders(_strength(affinity, texture))
    section = np.repeat(_joined(affinity, borders, _most_letters(len(cut))), np.diff(borders))
    _, first, number = np.unique(section, return_index=True, return_inverse=True)
    section = np.argsort(np.argsort(first))[number]
    border = np.zeros(len(cut), bool)
    border[borders[:-1]] = True
    return SongSections(tuple(cut), section, border)


def _most_letters(phrase_count: int) -> int:
    return int(np.clip(round(1 + phrase_count / 4), 1, MOST_LETTERS))


def phrase_textures(rows: np.ndarray, cut: Sequence[Phrase]) -> np.ndarray:
    """Notes a bar of each voice in each phrase, (phrases, voices); a song without notes has one silent voice."""
    voice = rows[:, PROGRAM].astype(np.int64) * 256 + rows[:, INSTANCE]
    names, number = np.unique(voice, return_inverse=True)
    starts = np.array([phrase.first_bar for phrase in cut])
    played = np.zeros((len(cut), max(1, len(names))))
    np.add.at(played, ((np.searchsorted(starts, rows[:, BAR], "right") - 1).clip(0), number), 1)
    return played / np.array([phrase.bars for phrase in cut])[:, None]


def _texture_likeness(texture: np.ndarray) -> np.ndarray:
    """Of any two phrases, 0 to 1: the share of what their voices play that they have in common, by loads."""
    load = np.sqrt(texture)
    least = np.minimum(load[:, None], load[None]).sum(2)
    return (least + 1e-9) / (np.maximum(load[:, None], load[None]).sum(2) + 1e-9)


def phrase_affinity(matches: BarMatches, texture: np.ndarray, cut: Sequence[Phrase]) -> np.ndarray:
    """How much any two phrases seem the same part of a song, (phrases, phrases) from 0 to 1: notes in common (of all,
    or of tune or accompaniment alone), harmony, and which voices play how much."""
    count = len(cut)
    starts = np.array([phrase.first_bar for phrase in cut])
    notes, harmony = np.eye(count), np.eye(count)
    for p in range(1, count):
        overall, by_role, chords = matches.earlier(cut[p])
        if not len(overall):
            continue
        tune = np.nan_to_num(by_role[LEAD])
        backing = np.nan_to_num(np.fmax(by_role[CHORDS], by_role[BASS]))
        shared = np.maximum(overall, 0.85 * np.maximum(tune, backing))
        for shift in range(-_AROUND_BARS, _AROUND_BARS + 1):
            at = starts[:p] + shift
            inside = (at >= 0) & (at < len(overall)) & (overall[at.clip(0, len(overall) - 1)] >= 0)
            at = at[inside]
            less = 1 - 0.1 * abs(shift)
            notes[p, :p][inside] = np.maximum(notes[p, :p][inside], less * shared[at])
            harmony[p, :p][inside] = np.maximum(harmony[p, :p][inside], less * chords[at])
    affinity = 0.45 * np.sqrt(notes) + 0.25 * harmony.clip(0) + 0.3 * _texture_likeness(texture)
    affinity = np.tril(affinity, -1)
    return affinity + affinity.T + np.eye(count)


def _strength(affinity: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """What speaks for a section's border before each phrase, (phrases,)."""
    count = len(affinity)
    strength = np.zeros(count)
    if count < 3:
        return strength
    alike = _texture_likeness(texture)
    for p in range(1, count):
        left, right = slice(max(0, p - 2), p), slice(p, min(count, p + 2))
        across = alike[left, right].mean()
        within = (alike[left, left].mean() + alike[right, right].mean()) / 2
        rise = affinity[p, 1:] - affinity[p - 1, :-1]  # along parallels: entry q is of phrases q + 1 and q
        far = np.abs(np.arange(1, count) - p) > 1
        begins, ends = rise[far].max(initial=0), (-rise[far]).max(initial=0)
        strength[p] = 1.2 * max(0.0, within - across) + 0.6 * (1 - alike[p - 1, p]) + 0.5 * begins + 0.3 * ends
    return strength / max(float(np.quantile(strength[1:], 0.9)), 0.35)


def _borders(strength: np.ndarray) -> np.ndarray:
    """Where sections begin, and where the last ends, (sections + 1,)."""
    count = len(strength)
    best, back = np.full(count + 1, -np.inf), np.zeros(count + 1, np.int64)
    best[0] = 0
    for end in range(1, count + 1):
        for length in range(1, min(_MOST_PHRASES, end) + 1):
            cost = _SHORT_COSTS[length] if length < len(_SHORT_COSTS) else 0.0
            if end in (length, count):  # introductions and ends are short, and the last may be cut off
                cost /= 3
            worth = best[end - length] - cost + (strength[end - length] - _BORDER_COST if end > length else 0)
            if worth > best[end]:
                best[end], back[end] = worth, length
    borders = [count]
    while borders[0] > 0:
        borders.insert(0, borders[0] - int(back[borders[0]]))
    return np.array(borders)


def _joined(affinity: np.ndarray, borders: np.ndarray, most: int) -> np.ndarray:
    """A number for each section, the same for those that are one; at most `most` different ones.

    Two sections are one when laid side by side they are much alike for this song. Where next to nothing returns, it is
    enough that they are as alike as the phrases inside either: a texture that stays is one section.
    """
    count, phrase_count = len(borders) - 1, len(affinity)
    others = affinity[~np.eye(phrase_count, dtype=bool)]
    usual, high = np.quantile(others, (0.5, 0.9)).tolist() if len(others) else (0.0, 0.0)
    enough = float(np.clip((usual + high) / 2, *ALIKE))
    spans = [slice(int(first), int(last)) for first, last in zip(borders[:-1], borders[1:], strict=True)]
    within = np.array([_within(affinity[span, span], usual) for span in spans])
    alike, least = np.eye(count), np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            alike[i, j] = alike[j, i] = _aligned(affinity[spans[i], spans[j]])
            least[i, j] = least[j, i] = enough
            if high < ALIKE[0]:
                least[i, j] = least[j, i] = _AS_WITHIN * max(float(min(within[i], within[j])), usual)
    margin = alike - least
    groups = [[i] for i in range(count)]
    while len(groups) > 1:
        pairs = [
            (float(margin[np.ix_(a, b)].mean()), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups[:i])
        ]
        closest, i, j = max(pairs)
        if closest < 0 and len(groups) <= most:
            break
        groups[j] += groups.pop(i)
    number = np.zeros(count, np.int64)
    for value, group in enumerate(groups):
        number[group] = value
    return number


def _within(block: np.ndarray, usual: float) -> float:
    """Mean affinity of the phrases of one section among each other."""
    others = block[~np.eye(len(block), dtype=bool)]
    return float(others.mean()) if len(others) else usual


def _aligned(block: np.ndarray) -> float:
    """Mean affinity of the phrases of two sections (rows and columns), laid side by side where they fit best."""
    if len(block) > block.shape[1]:
        block = block.T
    short, long = block.shape
    offsets = range(long - short + 1)
    return max(float(np.mean(np.diagonal(block, offset)[:short])) for offset in offsets)
