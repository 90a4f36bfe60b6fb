"""What midiex promises above all: whatever a file holds, it is still there, byte for byte, around the new music.

Files are made byte by byte with every kind of event there is, and read back by a parser of this file's own. Which
release belongs to which note is decided here anew: nothing of splice.py is used to check splice.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pretty_midi
import pytest
from helpers import tiny_config
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from songs import talkative_model

from midiex import edit, score
from midiex import extend as extending
from midiex.extend import Model, Passage
from midiex.outline import outline

SMPTE_25_40, SMPTE_24_4 = -25 * 256 + 40, -24 * 256 + 4
DIVISIONS = {24: 24, 96: 96, 480: 480, 960: 960, 30000: 30000, SMPTE_25_40: 500, SMPTE_24_4: 48}  # -> ticks a beat
STRIKE, RELEASE = 9, 8  # upper half of a status byte
BORDER = {0x8, 0xB, 0xC, 0xD, 0xE}  # what may be added where the song goes on, beside tempo and meter
EXPRESSIVE = {1, 2, 11, 64, 66, 67}  # controllers
MOVING = {*EXPRESSIVE, 7, 8, 10, 68, *range(70, 80), *range(91, 96)}
AT_REST = {7: 100, 8: 64, 10: 64, 11: 127, 91: 40, **dict.fromkeys(range(70, 80), 64)}  # others 0
METAS = (*range(11), 0x20, 0x21, 0x4B, 0x51, 0x54, 0x58, 0x59, 0x60, 0x7E, 0x7F)

cases: Counter[str] = Counter()
seen: Counter[bytes] = Counter()  # beginnings of events in files that were extended

# ---- files ----------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytes([value & 127])
    while value := value >> 7:
        out = bytes([value & 127 | 128]) + out
    return out


def meta(kind: int, payload: bytes) -> bytes:
    return bytes([0xFF, kind]) + varint(len(payload)) + payload


def other_event(a: int, b: int, c: int) -> bytes:
    """One event that is no note, chosen by three bytes."""
    channel, value = b % 16 if b > 200 else (0, 1, 9)[b % 3], c % 128
    kinds = {
        "polytouch": bytes([0xA0 | channel, 60 + b % 8, value]),
        "volume": bytes([0xB0 | channel, (7, 11)[b // 3 % 2], value]),
        "pedal": bytes([0xB0 | channel, 64, value]),
        "controller": bytes([0xB0 | channel, b % 128, value]),
        "bank": bytes([0xB0 | channel, (0, 32)[b // 3 % 2], value % 3]),
        "program": bytes([0xC0 | channel, (0, 5, 33, 40)[c % 4]]),
        "another program": bytes([0xC0 | channel, (0, 5, 33, 40)[b // 3 % 4]]),
        "aftertouch": bytes([0xD0 | channel, value]),
        "bend": bytes([0xE0 | channel, b % 128, value]),
        "bend again": bytes([0xE0 | channel, 0, value]),
        "sequence number": meta(0x00, bytes([b, c])),
        "damaged": meta((0x51, 0x54, 0x58, 0x59)[b % 4], bytes([c])),
        "words": meta(1 + b % 9, bytes(range(c, min(c + b % 7, 256)))),  # texts and names
        "prefix": meta(0x20, bytes([b % 16])),
        "port": meta(0x21, bytes([value])),
        "tempo": meta(0x51, (400_000 + 1000 * b + c).to_bytes(3, "big")),
        "smpte offset": meta(0x54, bytes([0x60 | b % 24, c % 60, b % 60, c % 25, b % 100])),
        "meter": meta(0x58, bytes([2 + b % 6, 2 + c % 2, 24, 8])),
        "key": meta(0x59, bytes([(b % 15 - 7) & 0xFF, c % 2])),
        "sequencer's own": meta(0x7F, bytes([0, b, c])),
        "unknown": meta((0x0A, 0x4B, 0x60, 0x7E)[b % 4], bytes([c]) * (b % 5)),
        "sysex": b"\xf0" + varint(3) + bytes([0x7E, value, 0xF7]),
        "sysex begun": b"\xf0" + varint(2) + bytes([0x43, value]),
        "sysex gone on": b"\xf7" + varint(2) + bytes([value, 0xF7]),
        "escape": b"\xf7" + varint(2) + bytes([0xF3, value]),
    }
    return [*kinds.values()][a % len(kinds)]


def track_bytes(drawn: bytes, beat: int, anchors: list[tuple[int, bytes]], rest: int) -> bytes:
    """A track as the file holds it: an event for every four bytes drawn, among events at given ticks; it ends `rest`
    ticks after its last event."""
    events, tick = list(anchors), 0
    for d, a, b, c in zip(*[iter(drawn)] * 4, strict=False):
        tick += d % 16 * beat // 12 if d % 4 else 0
        if a >= 120:
            events.append((tick, other_event(a, b, c)))
            continue
        channel, pitch, velocity = (0, 1, 9)[b % 3] if b < 240 else b % 16, 60 + b // 3 % 6, 1 + c % 127
        struck, released = bytes([0x90 | channel, pitch, velocity]), bytes([0x80 | channel, pitch, c % 128])
        if a % 16:  # a note with its release
            events.append((tick, struck))
            released = released if a % 2 else bytes([0x90 | channel, pitch, 0])
            events.append((tick + (a % 24) ** 2 * beat // 24, released))
        else:  # one that hangs, or a release without a note
            events.append((tick, struck if a % 32 else released))
    events.sort(key=lambda event: event[0])
    out, now = b"", 0
    for tick, event in events:
        out += varint(tick - now) + event
        now = tick
    return out + varint(rest) + b"\xff\x2f\x00"


@dataclass(frozen=True)
class File:
    """What a drawn file is like."""

    kind: int
    division: int
    drawn: tuple[bytes, ...]  # one for each track
    rests: tuple[int, ...]  # quarters of a beat up to each end_of_track
    anchor: int  # pitch and channel of the two notes every file has: one in its first bar, one at its end
    bars: int

    def write(self, path: Path) -> Path:
        beat = DIVISIONS[self.division]
        channel, pitch = (0, 1, 9, 15)[self.anchor % 4], 40 + self.anchor % 50
        on, off = bytes([0x90 | channel, pitch, 80]), bytes([0x80 | channel, pitch, 64])
        last = 4 * beat * self.bars
        anchors = [(0, on), (beat, off), (last - beat, on), (last - 1, off)]
        data = b"MThd\0\0\0\6" + self.kind.to_bytes(2, "big") + len(self.drawn).to_bytes(2, "big")
        data += self.division.to_bytes(2, "big", signed=True)
        for i, (drawn, rest) in enumerate(zip(self.drawn, self.rests, strict=True)):
            anchored = anchors if i == self.anchor % len(self.drawn) else []
            body = track_bytes(drawn, beat, anchored, rest * beat // 4)
            data += b"MTrk" + len(body).to_bytes(4, "big") + body
        path.write_bytes(data)
        return path


@st.composite
def files(draw: st.DrawFn) -> File:
    kind = draw(st.integers(0, 2))
    count = 1 if kind == 0 else draw(st.integers(1, 4))
    drawn = [draw(st.just(b"") | st.binary(min_size=40, max_size=200)) for _ in range(count)]
    rests = [draw(st.sampled_from([0, 0, 1, 40])) for _ in range(count)]
    division = draw(st.sampled_from([*DIVISIONS]))
    return File(kind, division, tuple(drawn), tuple(rests), draw(st.integers(0, 199)), draw(st.integers(2, 5)))


# ---- reading, independently -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    tick: int
    track: int
    data: bytes  # with its status

    @property
    def kind(self) -> int:
        """Upper half of the status: 0x8 a release, 0x9 a note struck, 0xF no channel's event."""
        kind = self.data[0] >> 4
        return RELEASE if kind == STRIKE and self.data[2] == 0 else kind

    @property
    def key(self) -> tuple[int, int, int]:
        """Track, channel and pitch of a note event."""
        return self.track, self.data[0] & 15, self.data[1]

    def at(self, tick: int) -> Event:
        return replace(self, tick=tick)


@dataclass(frozen=True)
class Parsed:
    kind: int
    division: int
    tracks: list[list[Event]]  # end_of_track aside

    @property
    def events(self) -> list[Event]:
        """Of all tracks by time, of those at one tick by track."""
        return sorted((event for track in self.tracks for event in track), key=lambda event: event.tick)

    def lane(self, event: Event) -> tuple[int, int]:
        return (event.track if self.kind == 2 else 0, event.data[0] & 15)


def parse(path: Path) -> Parsed:
    data = path.read_bytes()
    kind, count, division = (int.from_bytes(data[i : i + 2], "big", signed=True) for i in (8, 10, 12))
    at, tracks = 14, []
    for index in range(count):
        assert data[at : at + 4] == b"MTrk"
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        tracks.append([*parse_track(data[at + 8 : end], index)])
        at = end
    assert at == len(data)
    return Parsed(kind, division, tracks)


def parse_track(data: bytes, index: int) -> Iterator[Event]:
    at = tick = running = 0

    def number() -> int:
        nonlocal at
        value = 0
        while True:
            at += 1
            value = value << 7 | data[at - 1] & 127
            if data[at - 1] < 128:
                return value

    while True:
        tick += number()
        first = at
        status = data[at] if data[at] >= 128 else running
        at += status == data[at]
        if status >= 0xF0:
            at += status == 0xFF
            size = number()
            at += size
            if data[first : first + 2] == b"\xff\x2f":
                break
            yield Event(tick, index, data[first:at])
        else:
            running = status
            size = 1 if status >> 4 in (0xC, 0xD) else 2
            yield Event(tick, index, bytes([status]) + data[at : at + size])
            at += size
    assert at == len(data), "events behind end_of_track"


@dataclass(frozen=True)
class Notes:
    """Which note events of a file belong together."""

    release_of: dict[int, list[Event]]  # id of a release -> the notes it ends; none for a stray one
    ringing: set[tuple[int, int, int]]  # keys whose last note nothing releases
    lossy: set[tuple[int, int, int]]  # keys struck more often than released

    @classmethod
    def of(cls, file: Parsed) -> Notes:
        """A release ends the oldest note of its key; where releases were lost, all."""
        balance: Counter[tuple[int, int, int]] = Counter()
        for event in file.events:
            balance[event.key] += (event.kind == STRIKE) - (event.kind == RELEASE)
        lossy = {key for key, count in balance.items() if count > 0}
        release_of: dict[int, list[Event]] = {}
        sounding: defaultdict[tuple[int, int, int], list[Event]] = defaultdict(list)
        for event in file.events:
            if event.kind == STRIKE:
                sounding[event.key].append(event)
            elif event.kind == RELEASE:
                count = None if event.key in lossy else 1
                release_of[id(event)] = sounding[event.key][:count]
                del sounding[event.key][:count]
        return cls(release_of, {key for key, notes in sounding.items() if notes}, lossy)


def programs(file: Parsed) -> dict[int, int]:
    """The program that plays each note struck, by the event's id."""
    now: dict[tuple[int, int], int] = {}
    found = {}
    for event in sorted(file.events, key=lambda event: (event.tick, event.kind != 0xC)):
        if event.kind == 0xC:
            now[file.lane(event)] = event.data[1]
        elif event.kind == STRIKE:
            found[id(event)] = now.get(file.lane(event), 0)
    return found


def sounds(file: Parsed, start: int) -> list[tuple[bytes, tuple[object, ...]]]:
    """Each note struck from a tick on, with what a device that hears the tracks in their order has in force then."""
    lanes: defaultdict[tuple[int, int], dict[object, int]] = defaultdict(dict)
    found = []
    for event in file.events:
        if event.kind == 0xF:
            continue
        lane, (a, b) = lanes[file.lane(event)], (*event.data[1:], 0)[:2]
        if event.kind == 0xB and a == 121:
            lane |= {dial: AT_REST.get(dial, 0) for dial in (*EXPRESSIVE, "bend", "pressure") if dial in lane}
        elif event.kind == 0xB:
            lane[a] = b
        elif event.kind == 0xC:
            lane |= {"program": a, "high": lane.get(0, 0), "low": lane.get(32, 0)}
        elif event.kind == 0xD:
            lane["pressure"] = a
        elif event.kind == 0xE:
            lane["bend"] = a + 128 * b - 8192
        elif event.kind == STRIKE and event.tick >= start:
            moved = {dial: value for dial, value in lane.items() if dial in MOVING and value != AT_REST.get(dial, 0)}
            names = ("program", "high", "low", "bend", "pressure")
            found.append((event.data, (*(lane.get(name, 0) for name in names), sorted(moved.items()))))
    return found


# ---- checking -------------------------------------------------------------------------------------------------------


def told(events: list[Event]) -> list[tuple[int, bytes]]:
    return [(event.tick, event.data) for event in events]


def check_before(old: Parsed, new: Parsed, start: int) -> None:
    assert (new.kind, new.division, len(new.tracks)) == (old.kind, old.division, len(old.tracks))
    for theirs, ours in zip(old.tracks, new.tracks, strict=True):
        assert told([e for e in ours if e.tick < start]) == told([e for e in theirs if e.tick < start])


def check_after(
    old: Parsed, new: Parsed, start: int, end: int, resume: int, gone: frozenset[int] = frozenset()
) -> None:
    """The song from `resume` on stands at `end`, but for releases: those of notes from before `start` stay where they
    were, and events in `gone` (by id) are no more. Else new from there on is only what hands channels back at once.

    Keys with lost releases count only as far as something else than a release is concerned.
    """
    notes = Notes.of(old)
    for theirs, ours in zip(old.tracks, new.tracks, strict=True):
        rest = [e for e in ours if e.tick >= start and not (e.kind == RELEASE and e.key in notes.lossy)]
        expected = []
        for event in theirs:
            if event.tick < start or (event.kind == RELEASE and event.key in notes.lossy):
                continue
            ended = notes.release_of.get(id(event))
            if ended and ended[0].tick < start:
                same = [i for i, other in enumerate(rest) if (other.tick, other.data) == (event.tick, event.data)]
                assert same, f"the release {event} of a note from before is not where it was"
                del rest[same[-1]]
            elif event.tick >= resume and id(event) not in gone:
                expected.append(event.at(event.tick + end - resume))
        rest = [event for event in rest if event.tick >= end]
        added = rest[: len(rest) - len(expected)]
        assert told(rest[len(added) :]) == told(expected)
        for event in added:
            assert event.tick == end, f"new after the new music: {event}"
            assert event.kind in BORDER or event.data[:2] in (b"\xff\x51", b"\xff\x58"), event
    check_releases(old, new)
    heard, again = sounds(old, resume), sounds(new, end)
    assert again == heard, "the song goes on with other sounds"


def check_releases(old: Parsed, new: Parsed) -> None:
    """Nothing hangs that did not hang before."""
    before, after = Notes.of(old), Notes.of(new)
    assert after.ringing <= before.ringing
    assert after.lossy <= before.lossy


def check_dropped(old: Parsed, new: Parsed, start: int) -> None:
    """Of the song from `start` on nothing is left but releases of earlier notes."""
    notes = Notes.of(old)
    early = [e for e in old.events if any(note.tick < start for note in notes.release_of.get(id(e), []))]
    known = {(event.tick, event.data) for event in early if event.tick >= start and event.key not in notes.lossy}
    later = [event for event in new.events if event.tick >= start]
    assert known <= {(event.tick, event.data) for event in later}
    for event in later:
        text = event.data[:2] in (b"\xff\x01", b"\xff\x06") and (b"midiex:" in event.data or b"loopEnd" in event.data)
        assert text or event.kind in BORDER | {STRIKE} or event.data[:2] in (b"\xff\x51", b"\xff\x58"), event
    check_releases(old, new)


# ---- the three ways --------------------------------------------------------------------------------------------------


@cache
def tiny_model() -> Model:
    config = tiny_config()
    config = replace(config, generate=replace(config.generate, candidates=1, max_attempts=1))
    return Model(talkative_model(config), config, "0" * 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verbatim")


def written(passage: Passage, folder: Path) -> Parsed:
    extending.finish(passage, folder / "new.mid")
    return parse(folder / "new.mid")


def check(count: int) -> Any:
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck],
        phases=[Phase.generate],  # to make a failing file small would take minutes
    )  # fmt: skip


@given(file=files(), data=st.data())
@check(500)
def extend_one(file: File, data: st.DataObject, folder: Path) -> None:
    path = file.write(folder / "old.mid")
    old, song = parse(path), score.read(path)
    begin = data.draw(st.sampled_from(["auto", "end"]) | st.integers(2, len(song.grid) + 1).map("bar:{}".format))
    keep_ending = data.draw(st.booleans())
    loop = not keep_ending and data.draw(st.booleans())
    options: dict[str, Any] = {"begin": begin, "keep_ending": keep_ending, "loop": loop}
    line = outline(path, song.length_s + 300, **options).joint.line  # tells how long new bars will be
    seconds = float(line.grid.seconds[line.before + data.draw(st.integers(1, 2))])
    seconds += min(0.004, 0.005 * (seconds - line.start_s))  # --exact changes the new bars' tempo by 1 % at most
    follows = line.after is not None
    if follows:
        seconds += max(0.0, song.length_s - line.start_s)
    exact = data.draw(st.booleans()) and not (follows and file.division < 0)
    seed = data.draw(st.integers(0, 9))
    passage = extending.start(path, seconds, exact=exact, seed=seed, model=tiny_model(), **options)
    new, start, end = written(passage, folder), passage.line.start_tick, passage.line.end_tick
    check_before(old, new, start)
    assert score.events_before(score.read(folder / "new.mid").midi, start) == score.events_before(song.midi, start)
    if follows:
        check_after(old, new, start, end, start)
    elif passage.joint.resume_tick is None:
        check_dropped(old, new, start)
    else:
        check_releases(old, new)
    cases["extended"] += 1
    seen.update(event.data[: 1 + (event.data[0] == 0xFF)] for event in old.events)
    ends = Notes.of(old).release_of
    cases["ringing"] += any(e.tick > start and any(n.tick < start for n in ends.get(id(e), [])) for e in old.events)
    cases["kept" if follows else "dropped" if passage.joint.resume_tick is None else "closing"] += 1


def test_an_extension_changes_nothing_before_it(folder: Path) -> None:
    extend_one(folder=folder)
    assert cases["extended"] == 500
    assert min(cases[how] for how in ("kept", "dropped", "closing", "ringing")) >= 50, cases
    statuses = {start[0] for start in seen}
    assert {status >> 4 for status in statuses} == {*range(8, 16)} and statuses >= {0xF0, 0xF7, 0xFF}
    assert {status & 15 for status in statuses if status < 0xF0} == {*range(16)}
    assert {start[1] for start in seen if start[0] == 0xFF} == {*METAS}


@given(file=files(), data=st.data())
@check(150)
def fill_one(file: File, data: st.DataObject, folder: Path) -> None:
    path = file.write(folder / "old.mid")
    old, song = parse(path), score.read(path)
    bars = len(song.grid)
    first = data.draw(st.integers(0, bars - 1))
    last = int(song.grid.bar_at(max(event.tick for event in old.events if event.kind == STRIKE)))
    after = data.draw(st.integers(first + 1, bars if first else last))  # some note is left
    chosen = data.draw(st.sets(st.sampled_from(range(len(song.voices)))))
    tracks = [
        str(song.voices[i].track) if i % 2 else pretty_midi.program_to_instrument_name(song.voices[i].program)
        for i in sorted(chosen)
        if not song.voices[i].is_drum
    ]
    notes, played_by = Notes.of(old), programs(old)

    def mine(note: Event) -> bool:
        return (note.track, note.key[1], played_by[id(note)]) in rewritten

    for wanted in (tracks, []):
        passage = edit.start_fill(path, f"bar:{first + 1}", f"bar:{after + 1}", tracks=wanted, model=tiny_model())
        start, end = passage.line.start_tick, passage.line.end_tick
        voices = [song.voices[i] for i in passage.joint.rewritten]
        rewritten = {(voice.track, voice.channel, voice.program) for voice in voices}
        if any(mine(e) for e in old.events if e.kind == STRIKE and not start <= e.tick < end):
            break  # else they have no notes to go by, and all are rewritten
    new = written(passage, folder)
    inside = [event for event in old.events if start <= event.tick < end]
    gone = {id(e) for e in inside if e.kind == STRIKE and mine(e)}
    gone |= {
        id(e) for e in old.events if notes.release_of.get(id(e)) and all(id(n) in gone for n in notes.release_of[id(e)])
    }
    check_before(old, new, start)
    check_after(old, new, start, end, end, frozenset(gone))
    shared = {old.lane(e) for e in inside if e.kind == STRIKE and not mine(e)}
    for theirs, ours in zip(old.tracks, new.tracks, strict=True):
        stays = [e for e in theirs if start <= e.tick < end and id(e) not in gone and e.kind != RELEASE]
        stays = [e for e in stays if not (shapes(e) and old.lane(e) not in shared)]
        heard = iter(told([e for e in ours if start <= e.tick < end]))
        assert all(event in heard for event in told(stays)), "the hole lacks what should stay"
    standing = [e for e in inside if e.kind == STRIKE and not mine(e)]
    sound = programs(new)
    again = {(e.tick, e.track, e.data, sound[id(e)]) for e in new.events if e.kind == STRIKE}
    for event in standing:
        assert (event.tick, event.track, event.data, played_by[id(event)]) in again, "played by another program"
    cases["filled"] += 1


def test_a_fill_changes_nothing_around_it(folder: Path) -> None:
    fill_one(folder=folder)
    assert cases["filled"] == 150


def shapes(event: Event) -> bool:
    """Bends, pressure, pedal and expression."""
    return event.kind in (0xA, 0xD, 0xE) or (event.kind == 0xB and event.data[1] in EXPRESSIVE)


@given(file=files(), data=st.data())
@check(150)
def insert_one(file: File, data: st.DataObject, folder: Path) -> None:
    path = file.write(folder / "old.mid")
    old, song = parse(path), score.read(path)
    before = data.draw(st.integers(1, len(song.grid) - 1))
    seconds = float(song.grid.bar_s[before - 1]) * data.draw(st.sampled_from([0.1, 1.0, 2.0]))
    passage = edit.start_insert(path, f"bar:{before + 1}", seconds, model=tiny_model())
    new, start, end = written(passage, folder), passage.line.start_tick, passage.line.end_tick
    check_before(old, new, start)
    check_after(old, new, start, end, start)
    cases["inserted"] += 1


def test_an_insertion_only_moves_what_follows(folder: Path) -> None:
    insert_one(folder=folder)
    assert cases["inserted"] == 150
