"""Reading and writing MIDI files: above all, that every event is kept and no file, however damaged, crashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mido
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mido import Message, MetaMessage

from midiex import score
from midiex.errors import BadInput
from midiex.score import Song, events_before, read, save
from midiex.smf import RawEvent

EVER = 2**40
SMPTE_25_40 = -25 * 256 + 40

# ---- builders -------------------------------------------------------------------------------------------------------


def write_mido(path: Path, tracks: Sequence[Sequence], kind: int = 1, division: int = 480) -> Path:
    """A file from lists of (absolute tick, message)."""
    file = mido.MidiFile(type=kind, ticks_per_beat=division)
    for events in tracks:
        track = mido.MidiTrack()
        now = 0
        for tick, message in events:
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    file.save(path)
    return path


def note(start: int, end: int, pitch: int = 60, channel: int = 0, velocity: int = 80) -> list[tuple[int, Message]]:
    return [
        (start, Message("note_on", channel=channel, note=pitch, velocity=velocity)),
        (end, Message("note_off", channel=channel, note=pitch)),
    ]


def smf(*tracks: bytes, kind: int = 1, division: int = 480, n_tracks: int | None = None) -> bytes:
    """A file from raw track bytes."""
    header = b"MThd\0\0\0\6" + kind.to_bytes(2, "big")
    header += (len(tracks) if n_tracks is None else n_tracks).to_bytes(2, "big") + division.to_bytes(
        2, "big", signed=True
    )
    return header + b"".join(b"MTrk" + len(t).to_bytes(4, "big") + t for t in tracks)


NOTE = b"\x00\x90\x3c\x50\x60\x80\x3c\x40"  # middle C for 96 ticks
END = b"\x00\xff\x2f\x00"


def raw(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "raw.mid"
    path.write_bytes(data)
    return path


def reread(midi: mido.MidiFile, tmp_path: Path) -> Song:
    save(midi, tmp_path / "out.mid")
    return read(tmp_path / "out.mid")


def rows(song: Song, voice: int = 0) -> list[tuple[int, int, int, int]]:
    """(start, duration, pitch, velocity) of a voice's notes."""
    arrays = song.score.tracks[voice].notes.numpy()
    return list(zip(*(arrays[k].tolist() for k in ("time", "duration", "pitch", "velocity")), strict=True))


EVERY_KIND = [
    (0, MetaMessage("track_name", name="Fl\xf6te \xa7")),
    (0, MetaMessage("sequence_number", number=7)),
    (0, MetaMessage("copyright", text="nobody")),
    (0, MetaMessage("instrument_name", name="flute")),
    (0, MetaMessage("device_name", name="box")),
    (0, MetaMessage("channel_prefix", channel=2)),
    (0, MetaMessage("midi_port", port=1)),
    (0, MetaMessage("smpte_offset", frame_rate=29.97, hours=1, minutes=2, seconds=3, frames=4, sub_frames=5)),
    (0, MetaMessage("set_tempo", tempo=400_000)),
    (0, MetaMessage("time_signature", numerator=3, denominator=4)),
    (0, MetaMessage("key_signature", key="F#m")),
    (0, Message("sysex", data=(0x7E, 0x7F, 9, 1))),
    (0, Message("program_change", channel=2, program=73)),
    (10, Message("note_on", channel=2, note=60, velocity=90)),
    (20, MetaMessage("lyrics", text="la\xe9")),
    (30, MetaMessage("marker", text="A")),
    (40, MetaMessage("cue_marker", text="cue")),
    (50, MetaMessage("text", text="words")),
    (60, Message("polytouch", channel=2, note=60, value=3)),
    (70, Message("aftertouch", channel=2, value=4)),
    (80, Message("pitchwheel", channel=2, pitch=-8192)),
    (90, Message("pitchwheel", channel=2, pitch=0)),
    (100, Message("control_change", channel=2, control=7, value=100)),
    (110, MetaMessage("sequencer_specific", data=(0, 1, 200))),
    (200, Message("note_on", channel=2, note=60, velocity=0)),
    (300, MetaMessage("end_of_track")),
]

# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("division", [24, 96, 480, 30000])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_every_event_is_read_as_mido_reads_it(tmp_path: Path, kind: int, division: int) -> None:
    tracks = [EVERY_KIND] if kind == 0 else [EVERY_KIND, note(0, 50, channel=3)]
    path = write_mido(tmp_path / "a.mid", tracks, kind, division)
    song = read(path)
    assert song.midi.type == kind and song.midi.ticks_per_beat == division
    assert [list(track) for track in song.midi.tracks] == [list(track) for track in mido.MidiFile(path).tracks]
    assert song.voices[0] == score.Voice(0, 2, 73, False, "Fl\xf6te \xa7")
    assert rows(song) == [(10, 190, 60, 90)]
    assert song.n_notes == len(tracks)
    assert song.length_s == pytest.approx(200 / division * 0.4)
    assert song.grid.ticks[-1] >= 200
    assert (song.score.ticks_per_quarter, song.score.tempos[0].mspq) == (division, 400_000)
    assert (song.score.time_signatures[0].numerator, song.score.time_signatures[0].denominator) == (3, 4)


def test_saving_an_untouched_song_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write_mido(tmp_path / "a.mid", [EVERY_KIND, note(0, 50)])
    save(read(path).midi, tmp_path / "b.mid")
    assert (tmp_path / "b.mid").read_bytes() == path.read_bytes()


ODD_EVENTS = {
    "unknown meta keeps its delta": b"\x60\xff\x60\x02\x01\x02",
    "escape": b"\x10\xf7\x02\xf3\x01",
    "sysex in two packets": b"\x00\xf0\x02\x43\x12\x00\xf7\x03\x01\x02\xf7",
    "sysex of high bytes": b"\x00\xf0\x03\x90\x91\xf7",
    "empty sysex": b"\x00\xf0\x00",
    "sysex doubling its start": b"\x00\xf0\x03\xf0\x01\xf7",
    "impossible key": b"\x00\xff\x59\x02\x0c\x05",
    "key of one byte": b"\x00\xff\x59\x01\x00",
    "tempo of two bytes": b"\x00\xff\x51\x02\x01\x02",
    "tempo of four bytes": b"\x00\xff\x51\x04\x01\x02\x03\x04",
    "tempo of zero": b"\x00\xff\x51\x03\x00\x00\x00",
    "long meter": b"\x00\xff\x58\x06\x04\x02\x18\x08\x00\x00",
    "endless meter": b"\x00\xff\x58\x04\x04\xff\x18\x08",
    "meter of no beats": b"\x00\xff\x58\x04\x00\x02\x18\x08",
    "meter whose logarithm is not exact": b"\x00\xff\x58\x04\x04\x1d\x18\x08",
    "smpte offset at an unknown rate": b"\x00\xff\x54\x05\xe0\x63\x63\x63\x63",
    "port of no bytes": b"\x00\xff\x21\x00",
    "text that is no latin1 word": b"\x00\xff\x05\x04\x81\xff\x00\xe3",
    "stray realtime": b"\x00\xf8\x00\xfe",
    "stray song position": b"\x00\xf2\x01\x02",
}


@pytest.mark.parametrize("odd", ODD_EVENTS.values(), ids=ODD_EVENTS.keys())
def test_odd_events_come_out_byte_for_byte(tmp_path: Path, odd: bytes) -> None:
    track = b"\x00\xc0\x05" + NOTE + odd + b"\x05\x90\x40\x50\x60\x80\x40\x40" + END
    path = raw(tmp_path, smf(track))
    song = read(path)
    assert rows(song)[1][:2] == (96 + odd[0] + 5, 96)  # what stands behind it is where it was
    assert song.tempo.us_per_beat.tolist() == [500_000]
    save(song.midi, tmp_path / "out.mid")
    assert odd in (tmp_path / "out.mid").read_bytes()
    assert events_before(read(tmp_path / "out.mid").midi, EVER) == events_before(song.midi, EVER)


def test_running_status_holds_across_meta_and_sysex(tmp_path: Path) -> None:
    track = (
        b"\x00\x90\x3c\x50"
        + b"\x10\xff\x01\x01x"
        + b"\x10\x3c\x00"
        + b"\x00\xf0\x02\x01\xf7"
        + b"\x00\x40\x50\x08\x40\x00"
    )
    song = read(raw(tmp_path, smf(track + END)))
    assert rows(song) == [(0, 32, 60, 80), (32, 8, 64, 80)]


def test_broken_data_bytes_are_clipped(tmp_path: Path) -> None:
    song = read(raw(tmp_path, smf(b"\x00\xc0\xff" + NOTE + END)))
    assert song.voices[0].program == 127


def test_events_after_the_end_of_track_are_left_out(tmp_path: Path) -> None:
    song = read(raw(tmp_path, smf(NOTE + END + NOTE + b"\0\0\0")))
    assert song.n_notes == 1


def test_files_with_harmless_faults_are_read(tmp_path: Path) -> None:
    whole = smf(NOTE + END)
    faults = {
        "riff": b"RIFF\x30\0\0\0RMIDdata\x20\0\0\0" + whole,
        "no end_of_track": smf(NOTE),
        "other chunk": whole[:14] + b"XFIH\0\0\0\2ab" + whole[14:],
        "trailing bytes": whole + b"garbage",
        "long header": whole[:4] + b"\0\0\0\x08" + whole[8:14] + b"\0\0" + whole[14:],
        "chunk longer than the file": whole[:18] + b"\0\0\1\0" + whole[22:],
    }
    for fault, data in faults.items():
        song = read(raw(tmp_path, data))
        assert rows(song) == [(0, 96, 60, 80)], fault
        assert reread(song.midi, tmp_path).midi.tracks[0][-1].type == "end_of_track", fault


def test_type_0_with_two_tracks_becomes_writable(tmp_path: Path) -> None:
    song = read(raw(tmp_path, smf(NOTE + END, NOTE + END, kind=0)))
    assert reread(song.midi, tmp_path).midi.type == 1


def test_smpte_ticks_last_the_same_whatever_the_tempo(tmp_path: Path) -> None:
    events = [(0, MetaMessage("set_tempo", tempo=1_000_000)), *note(500, 2500)]
    song = read(write_mido(tmp_path / "a.mid", [events], division=SMPTE_25_40))
    assert (song.midi.ticks_per_beat, song.tempo.tpq, song.score.ticks_per_quarter) == (SMPTE_25_40, 500, 500)
    assert song.length_s == 2.5
    assert rows(song) == [(500, 2000, 60, 80)]
    assert reread(song.midi, tmp_path).midi.ticks_per_beat == SMPTE_25_40


def test_drop_frame_division_keeps_seconds_exact(tmp_path: Path) -> None:
    song = read(write_mido(tmp_path / "a.mid", [note(0, 23976)], division=-29 * 256 + 80))
    assert song.length_s == pytest.approx(10.0, rel=1e-9)
    assert song.tempo.tpq == song.score.ticks_per_quarter


def test_voices_are_track_channel_program_by_first_appearance(tmp_path: Path) -> None:
    def program(tick: int, channel: int, value: int) -> tuple[int, Message]:
        return tick, Message("program_change", channel=channel, program=value)

    events = [*note(0, 10, channel=9), program(10, 4, 30), *note(20, 30, channel=4), program(40, 4, 40)]
    song = read(write_mido(tmp_path / "a.mid", [events + note(50, 60, channel=4) + note(70, 80)], kind=0))
    assert [(v.track, v.channel, v.program, v.is_drum) for v in song.voices] == [
        (0, 9, 0, True),
        (0, 4, 30, False),
        (0, 4, 40, False),
        (0, 0, 0, False),
    ]
    assert [(t.program, t.is_drum, len(t.notes)) for t in song.score.tracks] == [
        (0, True, 1),
        (30, False, 1),
        (40, False, 1),
        (0, False, 1),
    ]


@pytest.mark.parametrize(("kind", "expected"), [(1, [11, 11]), (2, [0, 11])])
def test_a_program_rules_its_channel_in_every_track_but_of_type_2(
    tmp_path: Path, kind: int, expected: list[int]
) -> None:
    change = [(0, Message("program_change", channel=0, program=11)), *note(0, 10)]
    song = read(write_mido(tmp_path / "a.mid", [note(0, 10, pitch=70), change], kind))
    assert [voice.program for voice in song.voices] == expected


def test_note_pairing(tmp_path: Path) -> None:
    def pair(*events: tuple[int, int]) -> list[tuple[int, int]]:
        """(start, duration) from (tick, velocity), for one key."""
        messages = [(tick, Message("note_on", note=60, velocity=velocity)) for tick, velocity in events]
        return [r[:2] for r in rows(read(write_mido(tmp_path / "a.mid", [messages])))]

    assert pair((0, 9), (100, 9), (200, 0), (300, 0)) == [(0, 200), (100, 200)]  # oldest first
    assert pair((0, 9), (100, 0), (100, 9), (150, 0)) == [(0, 100), (100, 50)]
    assert pair((0, 9), (0, 0)) == [(0, 1)]
    assert pair((0, 0), (10, 9), (30, 0)) == [(10, 20)]  # a stray release
    assert pair((0, 9), (50, 9), (100, 0), (200, 9), (250, 0)) == [(0, 100), (50, 50), (200, 50)]  # one lost release
    assert pair((0, 9), (10, 0), (20, 9)) == [(0, 10), (20, 1)]


def test_a_note_never_released_ends_with_the_last_note_event(tmp_path: Path) -> None:
    song = read(write_mido(tmp_path / "a.mid", [note(0, 400, pitch=50), note(10, 20)[:1]]))
    assert rows(song, 1) == [(10, 390, 60, 80)]


def test_pedals_are_read(tmp_path: Path) -> None:
    pedal = [(t, Message("control_change", control=64, value=v)) for t, v in [(10, 64), (20, 127), (30, 63), (50, 90)]]
    song = read(write_mido(tmp_path / "a.mid", [pedal, note(0, 100), note(0, 100, channel=1)]))
    assert [(p.time, p.duration) for p in song.score.tracks[0].pedals] == [(10, 20), (50, 50)]
    assert len(song.score.tracks[1].pedals) == 0


def test_tempo_and_meter_come_from_all_tracks(tmp_path: Path) -> None:
    first = [(0, MetaMessage("set_tempo", tempo=600_000)), *note(0, 4800)]
    second = [(960, MetaMessage("set_tempo", tempo=300_000)), (1920, MetaMessage("time_signature", numerator=3))]
    song = read(write_mido(tmp_path / "a.mid", [first, second], kind=2))
    assert song.tempo.ticks.tolist() == [0, 960] and song.tempo.us_per_beat.tolist() == [600_000, 300_000]
    assert song.grid.ticks.tolist() == [0, 1920, 3360, 4800]
    assert [(m.time, m.numerator) for m in song.score.time_signatures] == [(0, 4), (1920, 3)]


def test_the_grid_covers_the_last_note_and_no_later_meter(tmp_path: Path) -> None:
    waltz = (0, MetaMessage("time_signature", numerator=3, denominator=4))
    late = (90_000, MetaMessage("time_signature", numerator=7, denominator=8))
    tempi = [(0, MetaMessage("set_tempo", tempo=250_000)), (1440, MetaMessage("set_tempo", tempo=1_000_000))]
    song = read(write_mido(tmp_path / "a.mid", [[waltz, *tempi, *note(1440, 1500), late]]))
    assert song.grid.ticks.tolist() == [0, 1440, 2880]
    assert song.grid.seconds.tolist() == [0, 0.75, 3.75]


# ---- hostile input --------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text.replace(str(path), "")
    return text


def test_what_is_no_midi_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert "no file" in refusal(tmp_path / "missing.mid")
    assert "no file" in refusal(write_mido(tmp_path / "a.mid", [note(0, 9)]) / "below.mid")
    assert "folder" in refusal(tmp_path)
    assert "is empty" in refusal(raw(tmp_path, b""))
    assert "not a MIDI file" in refusal(raw(tmp_path, b"Dear diary, today I played the piano."))
    assert "not a MIDI file" in refusal(raw(tmp_path, b"RIFF\x30\0\0\0WAVEfmt "))
    assert "type 7" in refusal(raw(tmp_path, smf(NOTE + END, kind=7)))
    assert "division of 0" in refusal(raw(tmp_path, smf(NOTE + END, division=0)))
    assert "division of 0" in refusal(raw(tmp_path, smf(NOTE + END, division=-25 * 256)))
    assert "cut off" in refusal(raw(tmp_path, smf(NOTE + END, n_tracks=2)))
    assert "no notes" in refusal(raw(tmp_path, smf(b"\x00\x90\x3c\x00" + END)))
    assert "no notes" in refusal(raw(tmp_path, smf()))
    assert "0xf4" in refusal(raw(tmp_path, smf(b"\x00\xf4" + END)))
    assert "data byte" in refusal(raw(tmp_path, smf(b"\x00\x3c\x50" + END)))
    assert "four bytes" in refusal(raw(tmp_path, smf(b"\xff\xff\xff\xff\x00\x90\x3c\x50" + END)))


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_mido(tmp_path / "a.mid", [EVERY_KIND, note(0, 50) + note(60, 70)]).read_bytes()
    end_of_last_track = len(whole) - 4 + 2  # the delta, 0xff: the next byte says which meta
    for size in range(4, end_of_last_track):
        assert "cut off" in refusal(raw(tmp_path, whole[:size])), size


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = 10 * 3600 * 960
    assert "10.0 hours" in refusal(write_mido(tmp_path / "a.mid", [note(0, hours)]))
    far = [(i * (2**28 - 1), MetaMessage("text", text="")) for i in range(10)]
    assert "tick 24159" in refusal(write_mido(tmp_path / "a.mid", [note(0, 10), far]))
    path = write_mido(tmp_path / "a.mid", [note(0, 10), note(0, 10)])
    data = path.read_bytes()
    path.write_bytes(data[:10] + b"\xff\xff" + data[12:])
    assert "65535 tracks" in refusal(path)
    path.write_bytes(data)
    monkeypatch.setenv("MIDIEX_MAX_EVENTS", "5")
    assert "more than 5 events" in refusal(path)
    monkeypatch.setenv("MIDIEX_MAX_EVENTS", "many")
    assert "MIDIEX_MAX_EVENTS is 'many'" in refusal(path)
    monkeypatch.setenv("MIDIEX_MAX_FILE_BYTES", "30")
    assert "the limit is 30" in refusal(path)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(write_mido(tmp_path / "a.mid", [EVERY_KIND, note(0, 50)]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        song = read(raw(tmp_path, bytes(whole)))
    except BadInput:
        return
    assert events_before(reread(song.midi, tmp_path).midi, EVER) == events_before(song.midi, EVER)


# ---- writing ---------------------------------------------------------------------------------------------------------

channel_events = st.one_of(
    st.tuples(st.sampled_from(range(0x80, 0xC0)), st.integers(0, 127), st.integers(0, 127)),
    st.tuples(st.sampled_from(range(0xE0, 0xF0)), st.integers(0, 127), st.integers(0, 127)),
    st.tuples(st.sampled_from(range(0xC0, 0xE0)), st.integers(0, 127)),
).map(bytes)
few_bytes = st.binary(max_size=9)
meta_events = st.tuples(st.sampled_from([*range(10), 0x20, 0x21, 0x51, 0x54, 0x58, 0x59, 0x60, 0x7F]), few_bytes)
events = st.one_of(
    channel_events,
    meta_events.map(lambda e: bytes([0xFF, e[0], len(e[1])]) + e[1]),
    st.tuples(st.sampled_from([0xF0, 0xF7]), few_bytes).map(lambda e: bytes([e[0], len(e[1])]) + e[1]),
)
tracks = st.lists(st.tuples(st.integers(0, 127), events), max_size=25)


@given(
    file=st.lists(tracks, min_size=1, max_size=3),
    kind=st.integers(0, 2),
    division=st.sampled_from([24, 96, 480, 30000, SMPTE_25_40]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_read_is_written_back(tmp_path: Path, file: list, kind: int, division: int) -> None:
    """Events of any bytes, sensible or not."""
    file = file[:1] if kind == 0 else file
    data = [NOTE + b"".join(bytes([delta]) + event for delta, event in track) + END for track in file]
    song = read(raw(tmp_path, smf(*data, kind=kind, division=division)))
    again = reread(song.midi, tmp_path)
    assert events_before(again.midi, EVER) == events_before(song.midi, EVER)
    assert (again.midi.type, again.midi.ticks_per_beat) == (song.midi.type, song.midi.ticks_per_beat)


def test_save_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    song = read(write_mido(tmp_path / "a.mid", [note(0, 480)]))
    (tmp_path / "b.mid").write_text("old")
    save(song.midi, tmp_path / "b.mid")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mid", "b.mid"]
    assert (tmp_path / "b.mid").read_bytes() == (tmp_path / "a.mid").read_bytes()


def test_save_failures_are_one_sentence_and_leave_nothing(tmp_path: Path) -> None:
    song = read(write_mido(tmp_path / "a.mid", [note(0, 480)]))
    for target in (tmp_path / "missing" / "b.mid", tmp_path / "a.mid" / "b.mid", tmp_path):
        with pytest.raises(BadInput) as caught:
            save(song.midi, target)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    broken = mido.MidiFile(tracks=[mido.MidiTrack([Message("note_on", time=-1)])])
    (tmp_path / "kept.mid").write_text("kept")
    with pytest.raises(ValueError):
        save(broken, tmp_path / "kept.mid")
    assert (tmp_path / "kept.mid").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mid", "kept.mid"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    song = read(write_mido(tmp_path / "a.mid", [note(0, 480)]))
    (tmp_path / "kept.mid").write_text("kept")
    monkeypatch.setattr("midiex.smf.os.replace", fail)
    with pytest.raises(BadInput, match="No space left"):
        save(song.midi, tmp_path / "kept.mid")
    assert (tmp_path / "kept.mid").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mid", "kept.mid"]


def test_events_before_tells_every_difference(tmp_path: Path) -> None:
    song = read(raw(tmp_path, smf(NOTE + b"\x00\xf7\x01\x05" + END)))
    assert events_before(song.midi, 96) == [[(0, (0x90, 60, 80))]]
    assert events_before(song.midi, 97) == [[(0, (0x90, 60, 80)), (96, (0x80, 60, 64)), (96, (0xF7, 1, 5))]]
    assert isinstance(song.midi.tracks[0][2], RawEvent)
