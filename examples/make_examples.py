"""Write the example songs that ship with midiex: `python examples/make_examples.py [FOLDER]`.

The music stands in this file as text: a melody is a string such as "mp C4:1 E4:.5 G4 | ...", a drum bar is a row of
steps. The script knows mido and nothing of midiex; the same script always writes the same bytes.

Notation: `C4:1.5` pitch and length in quarter notes (a missing length repeats the last one), `C4,E4` a chord, `r` a
rest, `-` holds the last note longer, `'` staccato, `!` accent, `|` a bar line (checked), `pp p mp mf f ff` loudness,
`mp<` or `f>` a hairpin towards the next loudness mark.
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import mido

TICKS_PER_BEAT = 480
DRUM_CHANNEL = 9
LOUDNESS = {"pp": 38, "p": 50, "mp": 62, "mf": 76, "f": 92, "ff": 104}
PITCH_CLASS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
DRUMS = {"kick": 36, "snare": 38, "rim": 37, "tom_low": 45, "tom_mid": 47, "tom_high": 50}
DRUMS |= {"hat": 42, "hat_open": 46, "crash": 49, "ride": 51}
STEP_VELOCITY = {"X": 110, "x": 88, "o": 52}
NOTE = re.compile(r"(?P<what>[A-G][#b]?\d(?:,[A-G][#b]?\d)*|r|-)(?::(?P<beats>\d*\.?\d+))?(?P<marks>['!]*)$")


@dataclass(frozen=True)
class Note:
    """One note; beats are quarter notes from the start of the song."""

    start_beats: float
    length_beats: float
    pitch: int
    velocity: float


@dataclass(frozen=True)
class Part:
    """One track: what it plays, on which General MIDI program, and how it sits in the mix and in time."""

    name: str
    program: int
    notes: list[Note]
    volume: int = 100
    pan: int = 64
    reverb: int = 45
    drums: bool = False
    late_ms: float = 0.0  # sits this far behind the beat
    sway_ms: float = 0.0  # plus a chance delay of up to this much, so that no note crosses a bar line to the left
    touch: float = 0.0  # chance change of velocity, up to this much either way
    pedal_beats: tuple[int, ...] = ()  # lengths of the harmonies under which the sustain pedal is held


@dataclass(frozen=True)
class Song:
    """A whole file. `swing` is where the second of two sixteenths falls inside their eighth (.5 is straight)."""

    file: str
    title: str
    bpm: float
    meter: tuple[int, int]
    key: str
    bars: int
    parts: list[Part]
    swing: float = 0.5

    @property
    def length_beats(self) -> float:
        return self.bars * self.meter[0] * 4 / self.meter[1]


def pitch_number(name: str) -> int:
    """The MIDI pitch of a name such as `F#3`; C4 is 60."""
    return PITCH_CLASS[name[0]] + name.count("#") - name.count("b") + 12 * (int(name[-1]) + 1)


def read(text: str, bar_beats: float = 4.0, gate: float = 0.95) -> list[Note]:
    """The notes of a line in the notation above, shaped by hairpins, metre and contour; `gate` is held / written.

    Raises ValueError for an unknown word or a bar of the wrong length.
    """
    now, length, bars = 0.0, 1.0, 0
    marks = [(0.0, float(LOUDNESS["mf"]), False)]  # beat, level, whether a hairpin starts here
    found: list[tuple[float, float, list[int], str]] = []
    for word in text.split():
        note = NOTE.match(word)
        if word == "|":
            bars += 1
            if abs(now - bars * bar_beats) > 1e-6:
                raise ValueError(f"Bar {bars} ends at beat {now}, not after {bar_beats} beats; mend it in {text!r}.")
        elif word.rstrip("<>") in LOUDNESS:
            marks.append((now, float(LOUDNESS[word.rstrip("<>")]), word[-1] in "<>"))
        elif note is None:
            raise ValueError(f"The word {word!r} is not in the notation.")
        else:
            length = float(note["beats"] or length)
            if note["what"] == "-":
                start, held, pitches, how = found[-1]
                found[-1] = (start, held + length, pitches, how)
            elif note["what"] != "r":
                found.append((now, length, [pitch_number(name) for name in note["what"].split(",")], note["marks"]))
            now += length
    middle = sum(max(pitches) for _, _, pitches, _ in found) / len(found)
    notes = []
    for start, held, pitches, how in found:
        shape = loudness_at(marks, start) + metric_weight(start, bar_beats) + 9 * ("!" in how)
        shape += max(-5.0, min(5.0, 0.4 * (max(pitches) - middle)))  # a line that climbs grows
        for pitch in pitches:
            below = 0 if pitch == max(pitches) else 7  # the top note of a chord sings
            notes.append(Note(start, held * (0.5 if "'" in how else gate), pitch, shape - below))
    return notes


def loudness_at(marks: list[tuple[float, float, bool]], beat: float) -> float:
    """The level at a beat: that of the last mark, or on a hairpin the way from it to the next."""
    past = [mark for mark in marks if mark[0] <= beat]
    start, level, hairpin = past[-1]
    if hairpin and len(past) < len(marks):
        end, goal, _ = marks[len(past)]
        level += (goal - level) * (beat - start) / (end - start)
    return level


def metric_weight(beat: float, bar_beats: float) -> float:
    """What the metre adds to the velocity: most on the first beat, least off the beat."""
    place = beat % bar_beats
    if place == 0:
        return 5.0
    return 2.0 if place == bar_beats / 2 else (0.0 if place % (1.5 if bar_beats == 3 else 1) == 0 else -4.0)


def beat_bars(*bars: dict[str, str], first_bar: int = 0) -> list[Note]:
    """Drum notes from bars of sixteen steps a row: `X` loud, `x` normal, `o` soft."""
    notes = []
    for number, bar in enumerate(bars, first_bar):
        for drum, row in bar.items():
            for step, sign in enumerate(row.replace(" ", "")):
                if sign != ".":
                    notes.append(Note(number * 4 + step / 4, 0.2, DRUMS[drum], STEP_VELOCITY[sign]))
    return notes


def broken(chords: str, order: str, length: str) -> str:
    """Each chord word of `chords` played note by note; `order` names its notes from 0, those it lacks are skipped."""
    words = []
    for word in chords.split():
        names = word.split(",")
        words += [f"{names[int(i)]}:{length}" for i in order if int(i) < len(names)] if len(names) > 1 else [word]
    return " ".join(words)


def nocturne() -> Song:
    """Three four-bar phrases in E minor: question, answer in G major, a climax that falls back to an open B7."""
    right = """
        mf B4:1 E5:.5 F#5 G5:2 | F#5:1.5 E5:.5 D5:1 B4 | C5:1 G5:1.5 F#5:.5 E5:1 | C5:.5 E5 A5:1 G5:.5 F#5:1.5 |
        mf< B4:1 E5:.5 F#5 B4,G5:1.5 A5:.5 | D5,A5:1.5 F#5:.5 B4,G5:1 B5 | f E5,C6:1.5 B5:.5 C5,A5:1 F#5 |
            B4,G5:2 f< D5:.5 G5 A5 B5 |
        ff G5,C6:1 G5,E6:2 D6:1 | D5,D6:1.5 C6:.5 G5,B5:1 G5 | f> C5,C6:1.5 B5:.5 E5,A5:1 E5 |
            A5:1 F#5:.5 E5 mf A4,D#5:2 |"""
    left = """
        mp E2:.5 B2 E3 G3 B3 G3 E3 B2 | D2 B2 D3 F#3 B3 F#3 D3 B2 | C2 G2 E3 G3 B3 G3 E3 G2 |
            A1 E2 C3 F#3 B1 F#2 D#3 A3 |
        mp< E2 B2 E3 G3 B3 G3 E3 B2 | F#2 D3 A3 D3 G2 D3 B3 D3 | mf A2 E3 C4 E3 D2 A2 F#3 C4 |
            G2 D3 G3 B3 mf< D4 B3 G3 D3 |
        f C2 G2 E3 G3 C4 G3 E3 G2 | B1 G2 D3 G3 B3 G3 D3 G2 | mf> A1 E2 C3 E3 G3 E3 C3 E2 |
            F#2 C3 E3 A3 mp B1 F#2 D#3 F#3 |"""
    pedal = (4, 4, 4, 2, 2, 4, 2, 2, 2, 2, 4, 4, 4, 4, 2, 2)
    hand = Part("Piano right hand", 0, read(right, gate=0.98), 127, 68, 60, sway_ms=12, touch=4, pedal_beats=pedal)
    other = replace(hand, name="Piano left hand", notes=read(left, gate=0.96), volume=104, pan=58)
    return Song("piano_nocturne.mid", "Nocturne in E minor", 80, (4, 4), "Em", 12, [hand, other])


def band() -> Song:
    """Swung funk in D dorian, sixteen bars: the riff twice, a bridge from B flat to A7, the riff again."""
    groove = {"hat": "x.o. ..o. x.o. ..o.", "snare": ".... X... .... X...", "kick": "X... .... ..x. ...."}
    lift = groove | {"hat": "x.o. ..o. x.o. ....", "hat_open": ".... .... .... ..x."}
    ride = {"ride": "x.o. ..o. x.o. ..o.", "snare": ".... X... .... X...", "kick": "X... ..x. ..x. ...."}
    small_fill = groove | {"hat": "x.o. ..o. x...", "snare": ".... X... ..o. X.xx"}
    big_fill = {"hat": "x.o. ..o.", "snare": ".... X... xoxX", "tom_high": ".... .... .... xx"}
    big_fill |= {"tom_low": ".... .... .... ..xX", "kick": "X... .... .... X..."}
    ride_fill = small_fill | {"hat": "", "ride": "x.o. ..o. x..."}
    crash = {"crash": "X..."}
    riff = [groove, lift, groove]
    drums = beat_bars(*riff, small_fill, *riff, big_fill, ride | crash, ride, ride, ride_fill)
    drums += beat_bars(groove | crash, *riff[1:], big_fill, first_bar=12)
    d_minor, g_nine = "D2:.75! r:1 C2:.25 r:.5 D2 F2 A2", "G2:.75! r:1 F2:.25 r:.5 G2 F2 E2"
    bass = f"""
        f {d_minor} | {g_nine} | {d_minor} | {g_nine} |
        {d_minor} | {g_nine} | {d_minor} | G2:.75! r:1 F2:.25 G2:.5 A2 G2 C2 |
        Bb1:1.5! F2:.5 r:.5 Bb1 D2 B1 | C2:1.5! G2:.5 r:.5 C2 B1 Bb1 | A1:1.5! E2:.5 r:.5 A1 G1 E1 |
            A1:1.5! A1:.5' C#2:.5 E2 G2 E2 |
        {d_minor} | {g_nine} | Bb1:.75! r:.25 F2:.5 A2 C2:.75! r:.25 G2:.5 B1 | D2:.75! r:1 C2:.25 D2:.5 F2 G2 A2 |"""
    stab, answer = "r:.5 C4,E4:.25 r:1.75 F3,C4:1 r:.5", "r:.5 B3,E4:.25 r:1.75 F3,B3:1 r:.5"
    keys = f"""
        mf {stab} | {answer} | {stab} | {answer} |
        {stab} | {answer} | {stab} | {answer} |
        F3,A3,D4:2 r:.5 A3,D4:1.5 | E3,G3,D4:2 r:.5 G3,C4:1.5 | G3,C4,E4:2 r:.5 G3,C4:1.5 |
            G3,C#4,E4:2 r:.5 G3,C#4:1.5 |
        {stab} | {answer} | r:.5 F3,A3,D4:1 r:1 E3,G3,C4:1 r:.5 | {stab} |"""
    sax = """
        mf r:.5 D4:.25 F4 G4:.5 A4:1! r:.5 C5:.5 A4 | B4:1.5! A4:.5 G4 r:1.5 |
            r:.5 D4:.25 F4 G4:.5 A4:.75! G4:.25 F4:.5 D4:1 | E4:1.5 D4:.25 C4 D4:1 r |
        mf< r:.5 D4:.25 F4 G4:.5 A4 C5 D5:1! r:.5 | D5:.5 B4 G4 A4 B4:1.5! r:.5 |
            f C5:.5 A4:.25 G4 F4:.5 G4 A4:1.5 r:.5 | G4:.5 F4 D4:1 r:2 |
        mf< r:.5 F4 A4 D5:2! C5:.5 | E5:1! D5:.5 C5:1 G4 r:.5 | r:.5 E4 G4 C5:2! B4:.5 | f C#5:1! A4:.5 G4 E4 C#4 r:1 |
        r:.5 D4:.25 F4 G4:.5 A4:1! r:.5 C5 A4 | f< B4:1.5! D5:.5 E5:1! D5:.5 B4 | ff D5:1! C5:.5 A4 C5:1! G4:.5 E4 |
            f D4:2 r:2 |"""
    parts = [
        Part("Drums", 0, drums, 124, 64, 30, drums=True, sway_ms=6, touch=5),
        Part("Electric bass", 33, read(bass, gate=0.85), 98, 64, 15, late_ms=3, sway_ms=6, touch=4),
        Part("Electric piano", 4, read(keys, gate=0.9), 100, 40, 40, late_ms=4, sway_ms=10, touch=5),
        Part("Tenor sax", 66, read(sax, gate=0.92), 96, 80, 55, late_ms=10, sway_ms=10, touch=4),
    ]
    return Song("band_groove.mid", "Groove in D dorian", 112, (4, 4), "Dm", 16, parts, swing=0.56)


def orchestra() -> Song:
    """Greensleeves, verse and refrain of eight bars each: flute, then oboe, then everyone, closing softly."""
    verse = "C5:1 D5:.5 E5:.75 F#5:.25 E5:.5 | D5:1 B4:.5 G4:.75 A4:.25 B4:.5"
    half = "C5:1 A4:.5 A4:.75 G#4:.25 A4:.5 | B4:1 G#4:.5"
    close = "C5:.75 B4:.25 A4:.5 G#4:.75 F#4:.25 G#4:.5"
    flute = f"""
        mp {verse} | {half} E4:1.5 |
        r:3 | r | mp E5:1.5 D5 | C5 mp< A5:.25 B5 C6 D6 E6 F#6 |
        f G6:1.5 G6:.75 F#6:.25 E6:.5 | D6:1 B5:.5 G5:.75 A5:.25 B5:.5 |
            C6:1 A5:.5 A5:.75 G#5:.25 A5:.5 | B5:1 G#5:.5 E5:1.5 |
        f G6:1.5 G6:.75 F#6:.25 E6:.5 | mf> D6:1 B5:.5 G5:.75 A5:.25 B5:.5 | mp E5:1.5 D5 | C5:2.5 A4:.5 |"""
    oboe = f"""
        mp r:3 | r | r | r:2.5 A4:.5 |
        {verse} | {close} | A4:2 r:1 |
        mf E5:1.5 E5:.75 D5:.25 C5:.5 | B4:1 G4:.5 D4:1.5 | C4:1.5 E4 | G#4:1 E4:.5 B3:1.5 |
        E5:1.5 E5:.75 D5:.25 C5:.5 | mf> B4:1 G4:.5 D4:1.5 | mp A4 B4 | A4:3 |"""
    horn = """
        p r:3 | r | r | r |
        r | r | r | E4 |
        mf C4:1 D4:.5 E4:1.5 | G4:3 | E4:1 D4:.5 C4:1.5 | E4:3 |
        E4:1.5 G4 | mf> G4 E4 | mp - - | E4:3 |"""
    timpani = """
        p r:3 | r | r | r |
        r | r | r | r:1.5 p< A2:.25 A2 A2 A2 A2 A2 |
        f r:3 | r | A2:1 r:2 | E2:1 r:2 |
        r:3 | r | mf r:1.5 E2 | mp A2 r |"""
    chords = """
        A2,E3,A3,C4,E4 | G2,D3,G3,B3,E4 | F2,C3,F3,A3,D4 | E2,B2,E3,G#3,D4 |
        A2,E3,A3,C4,E4 | G2,D3,G3,B3,E4 | F2,A2,D3 E2,B2,D3 | A2,E3,A3,C4,E4 |
        C3,G3,C4,E4,G4 | G2,D3,B3,D4,G4 | A2,E3,A3,C4,E4 | G#2,E3,G#3,B3,E4 |
        C3,G3,C4,E4,G4 | G2,D3,G3,B3,E4 | F2,A2,D3 E2,B2,D3 | A2,E3,A3,C4,E4 |"""
    violin_1 = f"""
        p E4:3 | E4 | E4 | E4 |
        E4:1.5 C5 | G4 E4 | - - | p< E4:3 |
        f G5:1.5 G5:.75 F#5:.25 E5:.5 | D5:1 B4:.5 G4:.75 A4:.25 B4:.5 | {half} E4:1.5 |
        G5:1.5 G5:.75 F#5:.25 E5:.5 | f> D5:1 B4:.5 G4:.75 A4:.25 B4:.5 | {close} | mp A4:3 |"""
    violin_2 = """
        p C4:3 | D4 | D4 | D4 |
        C4 | D4 | D4:1.5 B3 | p< C4:3 |
        mf C4 | D4 | C4 | B3:1.5 D4 |
        C4:3 | mf> D4 | D4:1.5 B3 | mp C4:3 |"""
    viola = """
        p A3:3 | B3 | A3 | G#3 |
        A3 | B3 | A3:1.5 E3 | p< E3:3 |
        mf G3 | G3:1.5 B3 | A3 E3 | E3:3 |
        G3 | mf> B3 | A3:1.5 E3 | mp E3:3 |"""
    cello = """
        mp A2:3 | G2 | F2 | E2 |
        A2 | G2 | F2:1.5 E2 | mp< A2:2 G2:1 |
        f C3:3 | G2 | A2 | G#2:1.5 B2 |
        C3:3 | f> G2 | F2:1.5 E2 | mp A2:3 |"""
    seats = [  # name, program, line, volume, pan
        ("Flute", 73, flute, 88, 72),
        ("Oboe", 68, oboe, 106, 60),
        ("Horn", 60, horn, 106, 46),
        ("Timpani", 47, timpani, 112, 84),
        ("Harp", 46, f"mp {broken(chords, '012343', '.5')}", 100, 30),
        ("Violin 1", 48, violin_1, 112, 36),
        ("Violin 2", 48, violin_2, 100, 50),
        ("Viola", 48, viola, 100, 76),
        ("Cello", 42, cello, 86, 92),
    ]
    parts = [
        Part(name, program, read(line, bar_beats=3, gate=0.97), volume, pan, 75, sway_ms=9, touch=3)
        for name, program, line, volume, pan in seats
    ]
    return Song("small_orchestra.mid", "Greensleeves", 84, (6, 8), "Am", 16, parts)


def chiptune() -> Song:
    """An eight-bar tune in C and an eight-bar answer that loops home through A flat and B flat."""
    lead = """
        f G4:.5 C5 E5 G5:1! E5:.5 C5:1 | A5:1.5! G5:.5 E5:1 C5 | F5:.75 G5:.25 A5:.5 C6:1! A5:.5 F5:1 |
            G5:1.5! F5:.5 D5:1 B4:.5 D5 |
        G4:.5 C5 E5 G5:1! C6:.5 B5 G5 | C6:1.5! A5:.5 E5:1 C5 | D5:.5 F5 A5 C6:1! A5:.5 F5 D5 |
            G5:1 F5:.5 E5 D5:1 r:.5 G5 |
        A5:.5 E5:.25 A5 C6:1! B5:.5 C6 A5:1 | A5:.5 F5:.25 A5 C6:1! D6:.5 C6 A5:1 |
            G5:.5 E5:.25 G5 C6:1! D6:.5 E6 C6:1 |
            D6:1! B5:.5 G5 B5:1 D5:.5 G5 |
        f< A5:.5 E5:.25 A5 C6:1! B5:.5 C6 E6:1 | D6:.5 C6 A5 F5 G5 A5 C6 A5 | ff Eb6:1.5! C6:.5 Ab5:1 Eb5:.5 Ab5 |
            D6:1! C6:.5 Bb5 F5 Bb5 C6 D6 |"""
    tune = "G3,C4,E4 | A3,C4,E4 | A3,C4,F4 | G3,B3,D4 | G3,C4,E4 | A3,C4,E4 | A3,D4,F4 | G3,B3,D4 |"
    reply = "A3,C4,E4 | A3,C4,F4 | G3,C4,E4 | G3,B3,D4 | A3,C4,E4 | A3,C4,F4 | Ab3,C4,Eb4 | Bb3,D4,F4 |"
    arpeggio = f"mp {broken(tune, '01210121', '.5')} mf {broken(reply, '0120120120120121', '.25')}"
    roots = """
        C2,G2,C3 | A1,E2,A2 | F1,C2,F2 | G1,D2,G2 | C2,G2,C3 | A1,E2,A2 | D2,A2,D3 | G1,D2,G2 |
        A1,E2,A2 | F1,C2,F2 | C2,G2,C3 | G1,D2,G2 | A1,E2,A2 | F1,C2,F2 | Ab1,Eb2,Ab2 | Bb1,F2,Bb2 |"""
    beat = {"kick": "X... ..x. x... ..x.", "snare": ".... X... .... X...", "hat": "x.o. x.o. x.o. x.o."}
    push = beat | {"kick": "X..x ..x. x..x ..x.", "hat": "x.ox x.o. x.ox x.o."}
    fill = {"kick": "X... ..x. x...", "snare": ".... X... X.xx XxXX", "hat": "x.o. x.o. x..."}
    crash = {"crash": "X..."}
    drums = beat_bars(beat | crash, *[beat] * 6, fill, push | crash, *[push] * 6, fill | crash)
    parts = [
        Part("Square lead", 80, read(lead, gate=0.85), 66, 64, 20),
        Part("Square arpeggio", 80, read(arpeggio, gate=0.7), 64, 84, 15),
        Part("Triangle bass", 38, read(f"f {broken(roots, '00201021', '.5')}", gate=0.8), 84, 64, 5),
        Part("Drums", 0, drums, 120, 64, 10, drums=True),
    ]
    return Song("chiptune_loop.mid", "Chiptune loop", 140, (4, 4), "C", 16, parts)


def to_midi(song: Song) -> mido.MidiFile:
    """The song as a format 1 MIDI file whose every track ends with the last bar."""
    end_ticks = round(song.length_beats * TICKS_PER_BEAT)
    conductor = [
        mido.MetaMessage("track_name", name=song.title),
        mido.MetaMessage("time_signature", numerator=song.meter[0], denominator=song.meter[1]),
        mido.MetaMessage("key_signature", key=song.key),
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(song.bpm)),
    ]
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT)
    midi.tracks.append(to_track([(0, message) for message in conductor], end_ticks))
    channels = iter(channel for channel in range(16) if channel != DRUM_CHANNEL)
    for part in song.parts:
        channel = DRUM_CHANNEL if part.drums else next(channels)
        midi.tracks.append(to_track(part_events(song, part, channel, end_ticks), end_ticks))
    return midi


def part_events(song: Song, part: Part, channel: int, end_ticks: int) -> list[tuple[int, mido.Message]]:
    """All events of a part with their absolute ticks, played by a seeded hand."""
    controls = ((7, part.volume), (10, part.pan), (91, part.reverb))
    events = [(0, mido.MetaMessage("track_name", name=part.name))]
    events.append((0, mido.Message("program_change", channel=channel, program=part.program)))
    events += [(0, mido.Message("control_change", channel=channel, control=c, value=v)) for c, v in controls]
    for change_beats in accumulate(part.pedal_beats, initial=0) if part.pedal_beats else ():
        tick = change_beats * TICKS_PER_BEAT
        events.append((tick, mido.Message("control_change", channel=channel, control=64, value=0)))
        if tick < end_ticks:  # down again just after the new harmony has sounded
            events.append((tick + 60, mido.Message("control_change", channel=channel, control=64, value=127)))
    chance = random.Random(f"{song.file} {part.name}")
    ticks_per_ms = song.bpm * TICKS_PER_BEAT / 60_000
    until = dict.fromkeys(range(128), end_ticks)  # a pitch ends where it next begins, at the latest with the song
    for note in sorted(part.notes, key=lambda note: (note.start_beats, note.pitch), reverse=True):
        delay = (part.late_ms + part.sway_ms * chance.random()) * ticks_per_ms
        start = round(swung(note.start_beats, song.swing) * TICKS_PER_BEAT + delay)
        end = round(swung(note.start_beats + note.length_beats, song.swing) * TICKS_PER_BEAT + delay)
        velocity = round(note.velocity + part.touch * (2 * chance.random() - 1))
        sound = {"channel": channel, "note": note.pitch}
        events.append((start, mido.Message("note_on", velocity=max(1, min(127, velocity)), **sound)))
        events.append((min(end, until[note.pitch]), mido.Message("note_off", **sound)))
        until[note.pitch] = start
    return events


def swung(beat: float, swing: float) -> float:
    """The beat with the sixteenths of every eighth moved to the swing."""
    eighths, place = divmod(beat * 2, 1)
    place = place * 2 * swing if place <= 0.5 else swing + (place - 0.5) * 2 * (1 - swing)
    return (eighths + place) / 2


def to_track(events: list[tuple[int, mido.Message]], end_ticks: int) -> mido.MidiTrack:
    """A track of delta times; at the same tick notes end before others begin."""
    rank = {"note_off": 1, "note_on": 2}
    track, now = mido.MidiTrack(), 0
    for tick, message in sorted(events, key=lambda event: (event[0], rank.get(event[1].type, 0))):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=end_ticks - now))
    return track


def make(folder: Path) -> list[Path]:
    """Write all examples into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for song in (nocturne(), band(), orchestra(), chiptune()):
        path = folder / song.file
        unfinished = path.with_suffix(".tmp")
        to_midi(song).save(unfinished)
        paths.append(unfinished.replace(path))
    return paths


if __name__ == "__main__":
    for made in make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        print(made)
