"""Where in a song and which of its tracks: what a person types, made bars and voices.

Places are seconds ("95.5"), minutes and seconds ("1:35.5") or bars ("bar:12", counted from 1 as in `midiex info`);
tracks are numbers as in `midiex info`, names of tracks or instruments, or parts of such names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .errors import BadInput
from .libraries import quietly
from .score import Song

FORMS = "seconds (95.5), minutes and seconds (1:35.5) or a bar (bar:12)"


def bar_at(song: Song, place: str | float) -> int:
    """Index of the bar line nearest to a place: 0 is the song's beginning, len(song.grid) the end of its last bar.

    Raises BadInput for a place that cannot be read or lies outside the song.
    """
    text = str(place).strip().lower()
    last_s = float(song.grid.seconds[-1])
    if found := re.fullmatch(r"bar:\s*(\d+)", text):
        bar = int(found[1]) - 1
        if not 0 <= bar <= len(song.grid):
            raise BadInput(f"{song.path} has bars 1 to {len(song.grid)} and bar {bar + 1} was asked for.")
        return bar
    if not (found := re.fullmatch(r"(?:(\d+):)?(\d+(?:\.\d*)?|\.\d+)", text)):
        raise BadInput(f"'{place}' is no place in a song; give {FORMS}.")
    seconds = 60 * int(found[1] or 0) + float(found[2])
    if seconds > last_s + 1:
        raise BadInput(f"{song.path} lasts {last_s:.1f} s and the place {place} lies behind its end.")
    return int(np.abs(song.grid.seconds - seconds).argmin())


def voices_of(song: Song, wanted: Sequence[str]) -> frozenset[int]:
    """Voices (indices into song.voices) that any of the wanted names or numbers means.

    Raises BadInput when one means none.
    """
    found: set[int] = set()
    for text in wanted:
        mine = {i for i in range(len(song.voices)) if _means(song, i, text.strip().lower())}
        if not mine:
            known = ", ".join(dict.fromkeys(f"{v.track} ({_names(song, i)[0]})" for i, v in enumerate(song.voices)))
            raise BadInput(f"No track of {song.path} with notes is called '{text}'; there are {known}.")
        found |= mine
    return frozenset(found)


def players(
    song: Song, solo: Sequence[str] = (), mute: Sequence[str] = (), drums: bool | None = None
) -> frozenset[int]:
    """Voices that new music may use: those of `solo` (all when empty) without those of `mute`; with `drums` True only
    drums, with False none of them.

    Raises BadInput when none is left.
    """
    chosen = voices_of(song, solo) if solo else frozenset(range(len(song.voices)))
    chosen -= voices_of(song, mute)
    if drums is not None:
        chosen = frozenset(i for i in chosen if song.voices[i].is_drum == drums)
    if not chosen:
        raise BadInput(f"No track of {song.path} is left to play; mute fewer of them.")
    return chosen


def _names(song: Song, index: int) -> list[str]:
    """What a voice is called: its track's name if it has one, its instrument's, its kind's."""
    voice = song.voices[index]
    name = "".join(filter(str.isprintable, voice.name)).strip()
    names = [name] if name else []
    if voice.is_drum:
        return [*names, "Drums"]
    midi = quietly("pretty_midi")
    return [*names, midi.program_to_instrument_name(voice.program), midi.program_to_instrument_class(voice.program)]


def _means(song: Song, index: int, text: str) -> bool:
    if text.isdigit():
        return song.voices[index].track == int(text)
    return bool(text) and any(text in name.lower() for name in _names(song, index))
