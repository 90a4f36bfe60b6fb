"""What a song is: length, bars, tempo and meter map, instruments, key, form, chunks, mood. For `midiex info`.

Knows songs and figures; knows no model and prints nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import conditions, metrics, tokens
from .chunks import chunk_starts, cut
from .endings import find_ending
from .libraries import quietly
from .score import Song
from .sections import song_sections

if TYPE_CHECKING:
    import pretty_midi


def seconds_view(song: Song) -> pretty_midi.PrettyMIDI:
    """The song's notes in seconds, one instrument a voice, for piano rolls and chroma.

    Built from the song's own tempo map, so that files pretty_midi cannot read itself (SMPTE time, type 2) have it too.
    """
    midi = quietly("pretty_midi")
    view: pretty_midi.PrettyMIDI = midi.PrettyMIDI()
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        instrument = midi.Instrument(voice.program, voice.is_drum, voice.name)
        notes = track.notes.numpy()
        starts, ends = song.tempo.to_seconds(notes["time"]), song.tempo.to_seconds(notes["time"] + notes["duration"])
        instrument.notes = [
            midi.Note(int(v), int(p), float(s), float(e))
            for v, p, s, e in zip(notes["velocity"], notes["pitch"], starts, ends, strict=True)
        ]
        view.instruments.append(instrument)
    return view


def describe(song: Song) -> dict[str, Any]:
    """Everything `midiex info` shows, ready for JSON."""
    view = seconds_view(song)
    grid = song.grid
    rows = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), grid)
    key, fit = metrics.key_of(view.get_pitch_class_histogram(use_duration=True))
    beats, seconds = float(grid.bar_beats.sum()), float(grid.bar_s.sum())
    figures = conditions.features(rows, beats, seconds)
    borders = chunk_starts(grid.bar_s)
    ending = find_ending(song, rows)
    return {
        "file": str(song.path),
        "type": song.midi.type,
        "division": song.midi.ticks_per_beat,
        "length_s": round(song.length_s, 3),
        "bars": len(grid),
        "notes": song.n_notes,
        "tempo_bpm": [
            {"at_s": round(float(s), 3), "bpm": round(60e6 / float(us), 3)}
            for s, us in zip(song.tempo.seconds, song.tempo.us_per_beat, strict=True)
        ],
        "meter": [
            {"at_s": round(float(song.tempo.to_seconds(m.time)), 3), "meter": f"{m.numerator}/{m.denominator}"}
            for m in song.score.time_signatures
        ],
        "instruments": [_instrument(song, i) for i in range(len(song.voices))],
        "key": key if figures["tuned"] else None,
        "key_fit": round(fit, 3),
        "chunks": [
            {"start_s": round(float(grid.seconds[c.first_bar]), 3), "bars": c.bars, "notes": len(c.rows)}
            for c in cut(rows, borders)
        ],
        "form": form_of(song),
        "ending": None if ending is None else {"bar": ending.first_bar + 1, "kinds": list(ending.kinds)},
        "mood": {
            "arousal": round(figures["arousal"], 2),
            "valence": round(figures["valence"], 2),
            "note": "rounded from regressions that tell labelled arousal well (AUC .87), valence roughly (.74)",
        },
    }


def form_of(song: Song) -> list[dict[str, Any]]:
    """The sections of a song, in order, with their bars counted from 1: phrases of one section in a row are one."""
    rows = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)
    found = song_sections(rows, song.grid.bar_beats, song.grid.bar_s)
    form: list[dict[str, Any]] = []
    for phrase, section in zip(found.phrases, found.letters, strict=True):
        if form and form[-1]["section"] == section:
            form[-1]["bars"][1] = phrase.end
        else:
            form.append({"section": section, "bars": [phrase.first_bar + 1, phrase.end]})
    return form


def _instrument(song: Song, index: int) -> dict[str, Any]:
    voice, notes = song.voices[index], song.score.tracks[index].notes.numpy()
    name = "Drums" if voice.is_drum else quietly("pretty_midi").program_to_instrument_name(voice.program)
    return {
        "track": voice.track,
        "track_name": voice.name,
        "channel": voice.channel + 1,
        "program": voice.program,
        "instrument": name,
        "notes": len(notes["pitch"]),
        "lowest": quietly("pretty_midi").note_number_to_name(int(np.min(notes["pitch"]))),
        "highest": quietly("pretty_midi").note_number_to_name(int(np.max(notes["pitch"]))),
    }
