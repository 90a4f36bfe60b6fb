"""Joining new notes to a song: each rule of what stays, what moves, what is dropped and what is set right at a seam."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np
import pytest
from mido import Message, MetaMessage
from songs import Timed, meter, note, spliced, tempo, write_midi

from midiex import score, timeline
from midiex.newnotes import NewNotes
from midiex.score import Song, read, save
from midiex.splice import Joint

BAR = 1920  # 4/4 at 480 ticks a beat, two seconds
END = MetaMessage("end_of_track")

# ---- builders -------------------------------------------------------------------------------------------------------


def control(tick: int, number: int, value: int, channel: int = 0) -> Timed:
    return tick, Message("control_change", channel=channel, control=number, value=value)


def bend(tick: int, pitch: int, channel: int = 0) -> Timed:
    return tick, Message("pitchwheel", channel=channel, pitch=pitch)


def program(tick: int, number: int, channel: int = 0) -> Timed:
    return tick, Message("program_change", channel=channel, program=number)


def bars(count: int, pitch: int = 60, channel: int = 0, first: int = 0) -> list[Timed]:
    """One note a bar, three beats long."""
    return [event for bar in range(first, first + count) for event in note(bar * BAR, 1440, pitch, 80, channel)]


def song_of(tmp_path: Path, *tracks: Sequence[Timed], kind: int = 1) -> Song:
    return read(write_midi(tmp_path / "song.mid", tracks, kind))


def new_notes(*rows: tuple[int, int, int, int]) -> NewNotes:
    """Rows (voice, start, duration, pitch), all of velocity 80."""
    voice, start, duration, pitch = np.array(rows, np.int64).reshape(-1, 4).T
    return NewNotes(voice, start, duration, pitch, np.full(len(rows), 80))


def dropped(song: Song, before: int, count: int = 2, loops: bool = False) -> Joint:
    """`count` new bars after bar `before`, and nothing of the song after that."""
    line = timeline.go_on(song, before, float(song.grid.seconds[before]) + 2 * count)
    return Joint(line, loops=loops)


def closing(song: Song, before: int, count: int = 2, loops: bool = False) -> Joint:
    """`count` new bars after the last, with the song's closing events behind them."""
    line = dropped(song, before, count).line
    return Joint(line, line.start_tick, clip=True, loops=loops)


def inserted(song: Song, before: int, count: int = 2) -> Joint:
    line = timeline.insert(song, before, float(song.grid.bar_s[before - 1]) * count)
    return Joint(line, line.start_tick)


def hole(song: Song, first: int, after: int, *voices: int) -> Joint:
    line = timeline.rewrite(song, first, after)
    return Joint(line, line.end_tick, rewritten=frozenset(voices))


def absolute(track: mido.MidiTrack) -> list[Timed]:
    ticks = np.cumsum([message.time for message in track]).tolist()
    return [(tick, message.copy(time=0)) for tick, message in zip(ticks, track, strict=True)]


def at(midi: mido.MidiFile, tick: int, track: int = 0) -> list[Message]:
    return [message for when, message in absolute(midi.tracks[track]) if when == tick and message.type != END.type]


def since(midi: mido.MidiFile, tick: int, track: int = 0) -> list[Timed]:
    return [event for event in absolute(midi.tracks[track]) if event[0] >= tick]


def controls(midi: mido.MidiFile, number: int, track: int = 0) -> list[tuple[int, int]]:
    """(tick, value) of a controller."""
    events = absolute(midi.tracks[track])
    return [(tick, m.value) for tick, m in events if m.type == "control_change" and m.control == number]


def bends(midi: mido.MidiFile, track: int = 0) -> list[tuple[int, int]]:
    return [(tick, m.pitch) for tick, m in absolute(midi.tracks[track]) if m.type == "pitchwheel"]


def programs(midi: mido.MidiFile, track: int = 0) -> list[tuple[int, int]]:
    return [(tick, m.program) for tick, m in absolute(midi.tracks[track]) if m.type == "program_change"]


def sounds(midi: mido.MidiFile, track: int = 0) -> list[tuple[int, int, int]]:
    """(tick, bank, program) of each program change of one channel, as a device hears it."""
    heard, bank = [], 0
    for tick, message in absolute(midi.tracks[track]):
        if message.type == "control_change" and message.control == 0:
            bank = message.value
        elif message.type == "program_change":
            heard.append((tick, bank, message.program))
    return heard


def rows(midi: mido.MidiFile, tmp_path: Path, voice: int = 0) -> list[tuple[int, int, int]]:
    """(start, duration, pitch) of the notes of a voice of the file as it is read again."""
    save(midi, tmp_path / "again.mid")
    notes = read(tmp_path / "again.mid").score.tracks[voice].notes.numpy()
    return list(zip(*(notes[name].tolist() for name in ("time", "duration", "pitch")), strict=True))


def off(pitch: int, channel: int = 0) -> Message:
    return Message("note_off", channel=channel, note=pitch)


# ---- new notes ------------------------------------------------------------------------------------------------------


def test_new_notes_go_to_their_own_track_and_channel(tmp_path: Path) -> None:
    song = song_of(tmp_path, [tempo(0, 120)], bars(1, channel=2), bars(1, channel=5))
    untouched = [list(track) for track in song.midi.tracks]
    late, early = (1, 2000, 100, 64), (0, 100, 1900, 50)
    out = spliced(song, dropped(song, 1), new_notes(late, (1, 5700, 900, 62), early))
    assert [list(track) for track in song.midi.tracks] == untouched
    assert since(out, 1, 0) == []
    assert since(out, BAR, 1) == [  # moved into the new music, and ending where it would have
        (BAR, Message("note_on", channel=2, note=50, velocity=80)),
        (2000, off(50, 2)),
        (3 * BAR, END),
    ]
    assert since(out, BAR, 2) == [
        (2000, Message("note_on", channel=5, note=64, velocity=80)),
        (2100, off(64, 5)),
        (5700, Message("note_on", channel=5, note=62, velocity=80)),
        (3 * BAR, off(62, 5)),  # not past the end
        (3 * BAR, END),
    ]


def test_overlapping_new_notes_are_cut(tmp_path: Path) -> None:
    song = song_of(tmp_path, bars(1), bars(1, pitch=64))  # two voices, one channel
    later = new_notes((1, 2700, 500, 60), (0, 2500, 300, 60), (0, 2700, 400, 60), (0, 2600, 300, 61))
    out = spliced(song, dropped(song, 1), later)
    assert rows(out, tmp_path, 0)[1:] == [(2500, 200, 60), (2600, 300, 61), (2700, 500, 60)]
    assert rows(out, tmp_path, 1)[1:] == []  # struck twice at once: one note, as long as the longer


def test_a_new_note_ends_where_a_standing_one_strikes_its_key(tmp_path: Path) -> None:
    song = song_of(tmp_path, bars(3), bars(3, pitch=64))
    out = spliced(song, hole(song, 0, 2, 0), new_notes((0, 1500, 1900, 64)))
    assert absolute(out.tracks[0])[:2] == [(1500, Message("note_on", note=64, velocity=80)), (BAR, off(64))]


def test_a_new_note_waits_for_one_of_the_song_to_end(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*bars(1), *note(BAR - 480, 960, 72)])  # rings 480 ticks into the new music
    begins_within = new_notes((0, BAR, 1000, 72), (0, BAR + 100, 200, 71), (0, BAR + 2000, 200, 72))
    out = spliced(song, dropped(song, 1), begins_within)
    assert [row for row in rows(out, tmp_path, 0) if row[2] >= 71] == [
        (BAR - 480, 960, 72), (BAR + 100, 200, 71), (BAR + 480, 520, 72), (BAR + 2000, 200, 72),
    ]  # fmt: skip
    out = spliced(song, dropped(song, 1), new_notes((0, BAR, 480, 72)))  # would end when it may begin
    assert [row for row in rows(out, tmp_path, 0) if row[2] == 72] == [(BAR - 480, 960, 72)]


def test_velocities_are_clipped_and_wrong_pitches_refused(tmp_path: Path) -> None:
    song = song_of(tmp_path, bars(1))
    columns = [np.array([value]) for value in (0, BAR, 10, 60)]
    for velocity, written in ((200, 127), (0, 1)):
        out = spliced(song, dropped(song, 1), NewNotes(*columns, np.array([velocity])))
        assert at(out, BAR) == [Message("note_on", note=60, velocity=written)]
    with pytest.raises(ValueError):
        spliced(song, dropped(song, 1), new_notes((0, BAR, 10, 128)))
    with pytest.raises(ValueError):
        spliced(song, dropped(song, 1), NewNotes(*columns, np.zeros(2)))


def test_texts_and_pedals_stand_where_they_belong(tmp_path: Path) -> None:
    song = song_of(tmp_path, [tempo(0, 120)], bars(1, channel=3))
    texts = [(BAR, MetaMessage("text", text="new")), (3 * BAR, MetaMessage("marker", text="loopEnd"))]
    out = spliced(song, dropped(song, 1), new_notes((0, BAR, 960, 60)), {(0, 3): [(BAR + 40, 3000)]}, texts)
    assert since(out, 1) == [*texts, (3 * BAR, END)]
    assert controls(out, 64, 1) == [(BAR + 40, 127), (3000, 0)]


# ---- what stays of the song -----------------------------------------------------------------------------------------

WHOLE = [
    (0, MetaMessage("track_name", name="whole")),
    (0, Message("sysex", data=(0x7E, 0x7F, 9, 1))),
    *bars(4),
    (BAR + 7, MetaMessage("lyrics", text="la")),
    (BAR + 7, Message("polytouch", note=60, value=3)),
    (3 * BAR, MetaMessage("marker", text="Outro")),
    control(3 * BAR, 7, 90),
    (4 * BAR + 10, MetaMessage("text", text="gone home")),
    (6 * BAR, END),
]


def test_of_a_dropped_ending_nothing_remains(tmp_path: Path) -> None:
    song = song_of(tmp_path, WHOLE, [tempo(0, 120), tempo(3 * BAR + 5, 30), (5 * BAR, END)])
    out = spliced(song, dropped(song, 3), new_notes((0, 3 * BAR, 480, 62)))
    assert [e for e in absolute(out.tracks[0]) if e[0] < 3 * BAR] == [
        e for e in absolute(song.midi.tracks[0]) if e[0] < 3 * BAR
    ]
    assert since(out, 3 * BAR) == [
        (3 * BAR, Message("note_on", note=62, velocity=80)),
        (3 * BAR + 480, off(62)),
        (5 * BAR, END),
    ]
    assert absolute(out.tracks[1]) == [tempo(0, 120), (0, END)]


def test_a_release_stays_with_its_note(tmp_path: Path) -> None:
    ring = note(BAR, 3000, 72)  # over the seam and well into the third bar
    song = song_of(tmp_path, [*bars(4), *ring])
    early = (BAR + 3000, Message("note_off", note=72, velocity=0))
    seam = 2 * BAR
    for joint in (dropped(song, 2), inserted(song, 2), hole(song, 2, 3, 0)):
        out = spliced(song, joint, new_notes((0, seam, 100, 62)))
        assert [event for event in absolute(out.tracks[0]) if event[1].type == "note_off" and event[1].note == 72] == [
            early
        ]
    out = spliced(song, inserted(song, 2, 1), new_notes())
    assert rows(out, tmp_path) == [(0, 1440, 60), (BAR, 1440, 60), (BAR, 3000, 72)] + [
        (bar * BAR, 1440, 60) for bar in (3, 4)
    ]


def test_a_note_struck_in_a_hole_takes_its_release_along(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*bars(4), *note(BAR + 100, 2 * BAR, 72)])
    out = spliced(song, hole(song, 1, 2, 0), new_notes((0, BAR, 100, 62)))
    assert rows(out, tmp_path) == [(0, 1440, 60), (BAR, 100, 62), (2 * BAR, 1440, 60), (3 * BAR, 1440, 60)]


def test_notes_never_released_are_let_go_at_the_seam(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*bars(4), note(100, 1, 40)[0], note(3 * BAR, 1, 41)[0]])
    assert off(40) in at(spliced(song, dropped(song, 2), new_notes()), 2 * BAR)
    out = spliced(song, inserted(song, 2), new_notes())
    assert off(40) in at(out, 2 * BAR)
    assert off(41) not in [message for _, message in absolute(out.tracks[0])]
    around = spliced(song, hole(song, 1, 2, 0), new_notes())
    assert off(40) not in [message for _, message in absolute(around.tracks[0])]


def test_one_release_for_two_notes_leaves_neither_hanging(tmp_path: Path) -> None:
    lost, again = note(100, 1, 40)[0], note(2 * BAR, 400, 40)
    song = song_of(tmp_path, [*bars(4), lost, *again])
    out = spliced(song, inserted(song, 2, 1), new_notes())
    assert [(t, m.type) for t, m in absolute(out.tracks[0]) if m.type[:4] == "note" and m.note == 40] == [
        (100, "note_on"),
        (2 * BAR, "note_off"),
        (3 * BAR, "note_on"),
        (3 * BAR + 400, "note_off"),
    ]
    assert (2 * BAR, off(40)) in absolute(spliced(song, dropped(song, 2), new_notes()).tracks[0])
    # in a hole the later one goes, and the release stays for the earlier
    out = spliced(song, hole(song, 2, 3, 0), new_notes())
    assert [(t, m.type) for t, m in absolute(out.tracks[0]) if m.type[:4] == "note" and m.note == 40] == [
        (100, "note_on"),
        (2 * BAR + 400, "note_off"),
    ]


def test_what_follows_keeps_its_distances_and_its_silence(tmp_path: Path) -> None:
    song = song_of(tmp_path, WHOLE, [(5 * BAR, END)])
    out = spliced(song, inserted(song, 3), new_notes((0, 3 * BAR, 480, 62)))
    moved = [(tick + 2 * BAR, message) for tick, message in absolute(song.midi.tracks[0]) if tick >= 3 * BAR]
    assert since(out, 5 * BAR) == moved and moved[-1] == (8 * BAR, END)
    assert absolute(out.tracks[1]) == [(7 * BAR, END)]


def test_closing_events_move_to_the_new_end(tmp_path: Path) -> None:
    song = song_of(tmp_path, WHOLE, [tempo(0, 120), tempo(4 * BAR, 30), (9 * BAR, END)])
    out = spliced(song, closing(song, 4), new_notes((0, 4 * BAR, 480, 62)))
    assert since(out, 4 * BAR + 481) == [(6 * BAR, MetaMessage("text", text="gone home")), (6 * BAR, END)]
    assert absolute(out.tracks[1]) == [tempo(0, 120), (6 * BAR, tempo(0, 30)[1]), (6 * BAR, END)]


# ---- tempo and meter ------------------------------------------------------------------------------------------------


def test_tempo_and_meter_are_handed_back(tmp_path: Path) -> None:
    head = [tempo(0, 120), meter(0, 4, 4), tempo(4 * BAR, 90), meter(4 * BAR, 3, 4)]
    song = song_of(tmp_path, [*head, *bars(7)])
    out = spliced(song, inserted(song, 4), new_notes((0, 4 * BAR, 480, 62)))
    types = ("set_tempo", "time_signature")
    assert [event for event in absolute(out.tracks[0]) if event[1].type in types and event[0] < 6 * BAR] == head[:2]
    theirs = [message for message in at(out, 6 * BAR) if message.type in types]
    assert theirs[-2:] == [message for _, message in head[2:]]  # the song's own come last
    save(out, tmp_path / "again.mid")
    again = read(tmp_path / "again.mid")
    assert np.diff(again.grid.ticks).tolist() == [BAR] * 6 + np.diff(song.grid.ticks[4:]).tolist()
    np.testing.assert_allclose(np.diff(again.grid.seconds), [2.0] * 6 + np.diff(song.grid.seconds[4:]).tolist())


def test_tempo_after_a_ritardando_is_the_usual_one(tmp_path: Path) -> None:
    song = song_of(tmp_path, [tempo(0, 120), tempo(3 * BAR, 80)], bars(5))
    out = spliced(song, dropped(song, 4), new_notes((0, 4 * BAR, 480, 62)))
    assert at(out, 4 * BAR) == [tempo(0, 120)[1]]
    assert not any(message.type == "set_tempo" for message in out.tracks[1])


def test_tempo_of_a_type_2_file_goes_where_tempo_stands(tmp_path: Path) -> None:
    song = song_of(tmp_path, bars(5), [tempo(0, 120), tempo(3 * BAR, 80), *bars(5, channel=1)], kind=2)
    out = spliced(song, dropped(song, 4), new_notes())
    assert at(out, 4 * BAR, 0) == [] and at(out, 4 * BAR, 1) == [tempo(0, 120)[1]]
    assert out.type == 2


# ---- programs and banks ---------------------------------------------------------------------------------------------

TWO_PROGRAMS = [program(0, 10), *bars(1), program(BAR, 20), *bars(3, first=1)]


def test_programs_are_chosen_for_the_notes_that_need_them(tmp_path: Path) -> None:
    song = song_of(tmp_path, TWO_PROGRAMS)
    seam = 4 * BAR

    def chosen(*rows: tuple[int, int, int, int]) -> list[tuple[int, int]]:
        return [c for c in programs(spliced(song, dropped(song, 4), new_notes(*rows))) if c[0] >= seam]

    assert chosen((1, seam + 600, 9, 60)) == []
    assert chosen((0, seam + 600, 9, 60)) == [(seam, 10)]  # in time for a device to load it
    four = [(1, seam + 500, 9, 60), (0, seam + 600, 9, 60), (0, seam + 650, 9, 60), (1, seam + 700, 9, 60)]
    assert chosen(*four) == [(seam + 600, 10), (seam + 700, 20)]
    out = spliced(song, dropped(song, 4), new_notes(*four))
    assert [[row[0] for row in rows(out, tmp_path, i) if row[0] >= seam] for i in (0, 1)] == [
        [seam + 600, seam + 650],
        [seam + 500, seam + 700],
    ]


def test_programs_are_handed_back(tmp_path: Path) -> None:
    song = song_of(tmp_path, TWO_PROGRAMS)
    out = spliced(song, inserted(song, 3), new_notes((0, 3 * BAR, 9, 60)))
    assert programs(out)[2:] == [(3 * BAR, 10), (5 * BAR, 20)]
    assert [row[0] for row in rows(out, tmp_path, 1)] == [BAR, 2 * BAR, 5 * BAR]


def test_a_program_the_song_sets_itself_has_the_last_word(tmp_path: Path) -> None:
    """Even where it stands in an earlier track, which players play first."""
    head = [program(0, 10), program(BAR, 20), program(3 * BAR, 30)]
    song = song_of(tmp_path, head, bars(4))
    out = spliced(song, inserted(song, 3), new_notes((0, 3 * BAR, 9, 60)))
    save(out, tmp_path / "out.mid")
    assert [voice.program for voice in read(tmp_path / "out.mid").voices] == [10, 20, 30]
    assert rows(out, tmp_path, 2) == [(5 * BAR, 1440, 60)]


def test_banks_come_with_programs(tmp_path: Path) -> None:
    first = [control(0, 0, 8), control(0, 32, 3), program(0, 10), *bars(1)]
    song = song_of(tmp_path, [*first, control(BAR, 0, 2), control(BAR, 32, 1), program(BAR, 11), *bars(3, first=1)])
    out = spliced(song, inserted(song, 3), new_notes((0, 3 * BAR, 9, 60)))
    mine = [control(0, 0, 8)[1], control(0, 32, 3)[1], program(0, 10)[1]]
    assert at(out, 3 * BAR)[:3] == mine
    assert at(out, 5 * BAR)[:3] == [control(0, 0, 2)[1], control(0, 32, 1)[1], program(0, 11)[1]]


def test_a_voice_without_a_bank_gets_bank_0_back(tmp_path: Path) -> None:
    song = song_of(tmp_path, [program(0, 10), *bars(1), control(BAR, 0, 8), program(BAR, 11), *bars(3, first=1)])
    out = spliced(song, inserted(song, 3), new_notes((0, 3 * BAR, 9, 60)))
    assert sounds(out) == [(0, 0, 10), (BAR, 8, 11), (3 * BAR, 0, 10), (5 * BAR, 8, 11)]


def test_a_voice_that_only_comes_later_brings_its_bank(tmp_path: Path) -> None:
    song = song_of(
        tmp_path, [program(0, 10), *bars(3), control(3 * BAR, 0, 8), program(3 * BAR, 11), *bars(1, first=3)]
    )
    out = spliced(song, inserted(song, 2), new_notes((1, 2 * BAR, 9, 60)))
    assert sounds(out) == [(0, 0, 10), (2 * BAR, 8, 11), (4 * BAR, 0, 10), (5 * BAR, 8, 11)]


def test_a_bank_set_for_a_program_to_come_is_not_lost(tmp_path: Path) -> None:
    bank = [control(0, 0, 8), program(0, 10), *bars(1), control(BAR, 0, 2), program(BAR, 11), *bars(3, first=1)]
    song = song_of(tmp_path, [*bank, control(3 * BAR - 1, 0, 5), program(3 * BAR, 12)])
    out = spliced(song, inserted(song, 3), new_notes((0, 3 * BAR, 9, 60)))
    assert sounds(out)[-3:] == [(3 * BAR, 8, 10), (5 * BAR, 2, 11), (5 * BAR, 5, 12)]


@pytest.mark.parametrize(("seen", "expected"), [(False, []), (True, [(2 * BAR, 0)])])
def test_drum_kit_0_is_restored_only_where_the_song_names_it(
    tmp_path: Path, seen: bool, expected: list[tuple[int, int]]
) -> None:
    kits = [program(0, 0, 9)] * seen
    song = song_of(tmp_path, [*kits, *bars(1, 36, 9), program(BAR, 16, 9), *bars(1, 36, 9, 1)])
    out = spliced(song, dropped(song, 2), new_notes((0, 2 * BAR, 9, 36)))
    assert [choice for choice in programs(out) if choice[0] >= 2 * BAR] == expected


def test_a_full_song_lends_no_channel_to_another_voice(tmp_path: Path) -> None:
    tracks = [[program(0, 10 + channel, channel), *bars(4, 60, channel)] for channel in range(16)]
    song = song_of(tmp_path, *tracks)
    for joint in (dropped(song, 3), inserted(song, 3), hole(song, 1, 3, 4)):
        start = joint.line.start_tick
        out = spliced(song, joint, new_notes((4, start, 480, 62), (4, start + 960, 480, 64)))
        assert len(out.tracks) == 16
        for channel, track in enumerate(out.tracks):
            assert {m.channel for m in track if not m.is_meta} == {channel}
            new = [m for t, m in absolute(track) if start <= t < joint.line.end_tick and m.type == "note_on"]
            if joint.rewritten:
                assert [m.note for m in new] == ([62, 64] if channel == 4 else [60, 60])
            else:
                assert [m.note for m in new] == ([62, 64] if channel == 4 else [])
        assert sum(m.type == "program_change" for track in out.tracks for m in track) == 16


# ---- dials ----------------------------------------------------------------------------------------------------------

MOVED = [control(0, 7, 90), control(0, 10, 20), *bars(8)]
FADE = [control(6 * BAR + i * 240, 7, 88 - 5 * i) for i in range(16)]  # over the last two bars
CURVE = [bend(7 * BAR + i * 120, 300 * i) for i in range(16)]


def test_a_fade_and_a_bend_do_not_go_on(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*MOVED, *FADE, *CURVE])
    out = spliced(song, dropped(song, 8), new_notes((0, 8 * BAR, 480, 62)))
    assert [e for e in since(out, 8 * BAR) if e[1].type in ("control_change", "pitchwheel")] == [
        control(8 * BAR, 7, 90),
        bend(8 * BAR, 0),
    ]  # and the pan, set long ago, stays


def test_dials_are_handed_back_where_the_song_goes_on(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*MOVED, *FADE, *CURVE])
    out = spliced(song, inserted(song, 7), new_notes((0, 7 * BAR, 480, 62)))
    assert [value for tick, value in controls(out, 7) if tick == 7 * BAR] == [90]
    left = [m.value for t, m in FADE if t < 7 * BAR][-1]
    assert [value for tick, value in controls(out, 7) if tick == 9 * BAR] == [left, FADE[8][1].value]  # then its own


def test_a_level_set_long_ago_stays_however_low(tmp_path: Path) -> None:
    song = song_of(tmp_path, [control(0, 7, 100), control(BAR, 11, 20), *bars(20)])
    out = spliced(song, dropped(song, 20), new_notes((0, 20 * BAR, 480, 62)))
    assert controls(out, 11) == [(BAR, 20)] and controls(out, 7) == [(0, 100)]


def test_dials_of_voices_without_new_notes_are_left_alone(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*MOVED, *FADE], [bend(7 * BAR, 99, 1), *bars(8, 60, 1)])
    out = spliced(song, dropped(song, 8), new_notes((0, 8 * BAR, 480, 62)))
    assert bends(out, 1) == [(7 * BAR, 99)]


# ---- pedal ----------------------------------------------------------------------------------------------------------


def pedalled(tmp_path: Path, up: int | None) -> Song:
    ups = [] if up is None else [control(up, 64, 0)]
    return song_of(tmp_path, [*bars(6), control(BAR + 100, 64, 127), *ups])


def test_a_pedal_held_over_the_seam_goes_up_where_it_would(tmp_path: Path) -> None:
    song = pedalled(tmp_path, 2 * BAR + 500)
    down = (BAR + 100, 127)
    assert controls(spliced(song, dropped(song, 2), new_notes()), 64) == [down, (2 * BAR + 500, 0)]
    out = spliced(song, inserted(song, 2), new_notes((0, 2 * BAR, 9, 60)))
    assert controls(out, 64) == [down, (2 * BAR + 500, 0), (4 * BAR, 127), (4 * BAR + 500, 0)]  # held again, as left
    spans = {(0, 0): [(2 * BAR + 40, 3 * BAR)]}
    out = spliced(song, dropped(song, 2), new_notes((0, 2 * BAR, 9, 60)), spans)
    assert controls(out, 64) == [down, (2 * BAR + 500, 0), (2 * BAR + 520, 127), (3 * BAR, 0)]  # only then down anew


@pytest.mark.parametrize("up", [None, 7 * BAR])
def test_a_pedal_held_for_ever_goes_up_at_the_seam(tmp_path: Path, up: int | None) -> None:
    song = pedalled(tmp_path, up)
    out = spliced(song, dropped(song, 2), new_notes())
    assert controls(out, 64) == [(BAR + 100, 127), (2 * BAR, 0)]


def test_a_pedal_of_a_later_track_does_not_undo_what_is_handed_back(tmp_path: Path) -> None:
    song = song_of(tmp_path, [control(0, 64, 113), *bars(4)], bars(4, 72))
    joint = inserted(song, 2)
    start, end = joint.line.start_tick, joint.line.end_tick
    lane = score.lane_of(song.midi, 1, 0)
    result = spliced(song, joint, new_notes((1, start, 480, 74)), {lane: [(start + 40, end)]})
    told = [(tick, m.value) for tick, _, m in score.walk(result) if m.type == "control_change" and m.control == 64]
    assert told[-1] == (end, 113) and (start + 40, 127) in told and (end - 1, 0) in told


def test_pedals_around_a_hole(tmp_path: Path) -> None:
    song = song_of(tmp_path, [control(0, 64, 127), *bars(4)], [control(0, 64, 127, 1), *bars(4, 60, 1)])
    out = spliced(song, hole(song, 1, 2, 0), new_notes((0, BAR, 480, 62)))
    assert controls(out, 64, 0) == [(0, 127), (BAR, 0), (2 * BAR, 127)]
    assert controls(out, 64, 1) == [(0, 127)]  # another instrument's


# ---- loops ----------------------------------------------------------------------------------------------------------


def test_a_loop_ends_as_the_song_began(tmp_path: Path) -> None:
    head = [control(0, 7, 100), program(0, 10), tempo(0, 100)]
    later = [program(BAR, 20), control(BAR, 7, 60), control(BAR, 91, 90), bend(2 * BAR, 500), tempo(BAR, 110)]
    data_entry = [control(BAR, 101, 0), control(BAR, 100, 0), control(BAR, 6, 12)]
    song = song_of(tmp_path, [*head, *bars(4), *later, *data_entry, (4 * BAR, Message("program_change", program=99))])
    line = timeline.go_on(song, 4, float(song.grid.seconds[4]) + 4.5)
    out = spliced(song, Joint(line, line.start_tick, clip=True, loops=True), new_notes((1, 4 * BAR, 480, 62)))
    last = at(out, line.end_tick)
    state: dict[object, object] = {}
    for _, message in absolute(out.tracks[0]):
        if message.type == "control_change":
            state[message.control] = message.value
        elif message.type in ("program_change", "pitchwheel"):
            state[message.type] = message.program if message.type == "program_change" else message.pitch
    assert last[0] == Message("program_change", program=99)  # the song's closing event comes first
    assert state == {7: 100, "program_change": 10, 91: 40, "pitchwheel": 0, 101: 0, 100: 0, 6: 12}
    assert controls(out, 6) == [(BAR, 12)]  # data entry is never touched


def test_a_loop_without_a_first_tempo_ends_at_the_default(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*bars(4), tempo(BAR, 140)])
    out = spliced(song, dropped(song, 4, loops=True), new_notes((0, 4 * BAR, 480, 62)))
    assert [m.tempo for m in out.tracks[0] if m.type == "set_tempo"][-1] == 500_000


# ---- holes ----------------------------------------------------------------------------------------------------------


def test_in_a_hole_all_stays_but_the_rewritten_notes_and_what_shaped_them(tmp_path: Path) -> None:
    shaping = [bend(BAR + 10, 99), control(BAR + 10, 11, 50), control(BAR + 20, 64, 127), control(BAR + 30, 64, 0)]
    shaping += [(BAR + 40, Message("aftertouch", value=9)), (BAR + 50, Message("polytouch", note=60, value=9))]
    level = [control(BAR + 60, 7, 77), (BAR + 70, MetaMessage("lyrics", text="la"))]
    song = song_of(tmp_path, [*bars(4), *shaping, *level], [*bars(4, 50, 1), bend(BAR + 10, 99, 1)])
    out = spliced(song, hole(song, 1, 2, 0), new_notes((0, BAR + 480, 480, 62)))
    inside = [event for event in absolute(out.tracks[0]) if BAR <= event[0] < 2 * BAR]
    assert inside == [
        *level,
        (BAR + 480, Message("note_on", note=62, velocity=80)),
        (BAR + 960, off(62)),
    ]
    handed_back = [bend(0, 99)[1], control(0, 11, 50)[1], Message("aftertouch", value=9)]
    assert at(out, 2 * BAR)[:-1] == handed_back
    assert list(out.tracks[1]) == list(song.midi.tracks[1])
    away = {tick: [m for t, m in absolute(out.tracks[0]) if t == tick] for tick in (0, 1440, 3 * BAR)}
    assert away == {tick: [m for t, m in absolute(song.midi.tracks[0]) if t == tick] for tick in away}


def test_what_shapes_a_standing_voice_stays(tmp_path: Path) -> None:
    """Two tracks on one channel, of which one is rewritten; and a note of the other that rings into the hole."""
    curve = [bend(BAR - 100 + i, 10 * i) for i in range(0, 400, 50)]
    for standing in (bars(4, 72), note(0, BAR + 960, 72) + bars(1, 72, 0, 3)):
        song = song_of(tmp_path, [*bars(4), *curve], standing)
        out = spliced(song, hole(song, 1, 2, 0), new_notes((0, BAR, 480, 62)))
        assert bends(out) == [(tick, message.pitch) for tick, message in curve]


def test_a_standing_note_keeps_its_program(tmp_path: Path) -> None:
    """Two programs take turns on one channel: new notes of the one must not change how the other's sound."""
    turns = [program(0, 10), *bars(1, 60), program(960, 20), *note(BAR + 480, 100, 72), *note(BAR + 960, 100, 74)]
    song = song_of(tmp_path, [*turns, program(2 * BAR, 10), *bars(2, 60, 0, 2)])
    new = new_notes((0, BAR, 100, 62), (0, BAR + 480, 100, 63), (0, BAR + 1000, 100, 64), (0, BAR + 960, 1, 65))
    out = spliced(song, hole(song, 1, 2, 0), new)
    assert rows(out, tmp_path, 1) == [(BAR + 480, 100, 72), (BAR + 960, 100, 74)]
    mine = [row for row in rows(out, tmp_path, 0) if BAR <= row[0] < 2 * BAR]
    assert mine == [(BAR, 100, 62), (BAR + 481, 99, 63), (BAR + 1000, 100, 64)]  # one channel, one program at a time


def test_a_sound_is_not_chosen_before_a_standing_note_needs_another(tmp_path: Path) -> None:
    song = song_of(
        tmp_path, [program(0, 10), *bars(1), program(960, 20), *note(BAR + 240, 100, 72), *bars(2, 72, 0, 2)]
    )
    out = spliced(song, hole(song, 1, 2, 0), new_notes((0, BAR + 480, 100, 62)))
    assert programs(out) == [(0, 10), (960, 20), (BAR + 480, 10), (2 * BAR, 20)]


def test_tracks_of_one_channel_each_let_their_notes_go(tmp_path: Path) -> None:
    song = song_of(tmp_path, [*bars(4), note(100, 1, 40)[0]], [note(100, 1, 40)[0], *note(3 * BAR, 9, 40)])
    out = spliced(song, dropped(song, 2), new_notes())
    assert off(40) in at(out, 2 * BAR, 0) and off(40) in at(out, 2 * BAR, 1)


def test_a_hole_at_the_beginning_or_end(tmp_path: Path) -> None:
    song = song_of(tmp_path, [program(0, 10), *bars(4)])
    out = spliced(song, hole(song, 0, 1, 0), new_notes((0, 0, 480, 62)))
    assert rows(out, tmp_path) == [(0, 480, 62)] + [(bar * BAR, 1440, 60) for bar in (1, 2, 3)]
    assert programs(out) == [(0, 10)]
    out = spliced(song, hole(song, 3, 4, 0), new_notes((0, 3 * BAR, 480, 62)))
    assert rows(out, tmp_path)[-2:] == [(2 * BAR, 1440, 60), (3 * BAR, 480, 62)]


# ---- file types -----------------------------------------------------------------------------------------------------


def test_type_0_keeps_its_one_track(tmp_path: Path) -> None:
    song = song_of(tmp_path, [program(0, 10), program(0, 20, 1), *bars(2), *bars(2, 50, 1)], kind=0)
    out = spliced(song, inserted(song, 1), new_notes((0, BAR, 480, 62), (1, BAR, 480, 52)))
    assert (out.type, len(out.tracks)) == (0, 1)
    assert sorted((m.channel, m.note) for m in at(out, BAR)) == [(0, 62), (1, 52)]


def test_type_2_tracks_do_not_share_their_channels(tmp_path: Path) -> None:
    one, other = [program(0, 10), bend(2 * BAR - 100, 99), *bars(2)], [program(0, 20), *bars(2)]
    song = song_of(tmp_path, one, other, kind=2)
    out = spliced(song, dropped(song, 2), new_notes((0, 2 * BAR, 480, 62), (1, 2 * BAR, 480, 60)))
    assert (out.type, len(out.tracks)) == (2, 2)
    assert [len(programs(out, track)) for track in (0, 1)] == [1, 1]
    assert bends(out, 0) == [(2 * BAR - 100, 99), (2 * BAR, 0)] and bends(out, 1) == []


def test_nothing_new_gives_the_file_back(tmp_path: Path) -> None:
    song = song_of(tmp_path, WHOLE, [tempo(0, 120)])
    save(spliced(song, hole(song, 1, 2), new_notes()), tmp_path / "out.mid")
    assert (tmp_path / "out.mid").read_bytes() == (tmp_path / "song.mid").read_bytes()
    assert score.events_before(read(tmp_path / "out.mid").midi, 2**40) == score.events_before(song.midi, 2**40)
