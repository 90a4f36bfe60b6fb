"""Playing: the song as it is and then the new music, in time, stopped on bar lines, never a note left sounding."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
from helpers import needs_fluidsynth, song_in_bars
from songs import (
    EXAMPLES,
    SMPTE_25,
    changing_song,
    note,
    riff,
    riff_song,
    save_talkative,
    tempo,
    type_0_song,
    write_midi,
)

import midiex
from midiex import provenance, score
from midiex.errors import BadInput, MissingPart
from midiex.extend import Model, Passage
from midiex.play import Ahead, Bar, Batch, Played, Player, Port, Silent, Take, batches, composing, open_port, port_names
from midiex.play.player import LATE_S
from midiex.play.speakers import Speakers
from midiex.play.stream import playable
from midiex.tokens import BAR, DURATION, DURATIONS, MICRO, PITCH, POSITION, PROGRAM


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return midiex.load(save_talkative(tmp_path_factory.mktemp("models") / "talkative"))


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Eight bars of two seconds."""
    return riff_song(tmp_path / "song.mid")


class Fake:
    """An instrument whose time is what it is told, and which remembers what it was sent, and when."""

    def __init__(self, lead_s: float = 0.0, at: Callable[[float], None] = lambda now: None) -> None:
        self.lead_s, self.time_s, self.at = lead_s, 100.0, at
        self.sent: list[tuple[float, mido.Message]] = []
        self.late: list[float] = []
        self.silenced = 0

    def now(self) -> float:
        return self.time_s

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.time_s += seconds
        self.at(self.time_s)

    def send(self, at_s: float, message: mido.Message) -> None:
        self.sent.append((at_s, message))
        self.late.append(self.time_s - at_s)

    def silence(self) -> None:
        self.silenced += 1

    def close(self) -> None:
        pass


class Given:
    """Batches that are there at once, or each at its time of a clock that goes on meanwhile."""

    def __init__(self, given: Sequence[Batch], clock: Fake | None = None, there_at: Sequence[float] = ()) -> None:
        self.given, self.clock, self.there_at = list(given), clock, list(there_at)

    @property
    def ahead_s(self) -> float:
        return sum(batch.seconds for batch in self.given)

    def ready(self, timeout_s: float) -> bool:
        if self.clock and self.there_at and self.clock.time_s < self.there_at[0]:
            assert timeout_s > 0
            self.clock.time_s += timeout_s
            return self.clock.time_s >= self.there_at[0]
        return True

    def take(self) -> Batch | None:
        self.there_at = self.there_at[1:]
        return self.given.pop(0) if self.given else None


def written(passage: Passage) -> Passage:
    """The passage complete; its chunks come again, from memory, whenever they are asked for."""
    chunks = list(passage.chunks())

    def again() -> Iterator[Any]:
        passage.written.clear()
        for chunk in chunks:
            passage.written.append(chunk)
            yield chunk

    passage.chunks = again  # type: ignore[method-assign]
    return passage


def heard(passage: Passage, sink: Fake | Silent | None = None) -> tuple[Take, Played]:
    take = Take(passage.song.midi)
    played = Player(sink or Silent(), Given(list(batches(passage))), take).play()
    return take, played


def events_of(midi: mido.MidiFile) -> Counter[tuple[int, int, tuple[int, ...]]]:
    """All events but the tracks' ends, as (tick, track, bytes)."""
    found = [(tick, track, tuple(m.bytes())) for tick, track, m in score.walk(midi) if m.type != "end_of_track"]
    return Counter(found)


def saved(take: Take, folder: Path) -> mido.MidiFile:
    take.save_as(folder / "take.mid")
    return score.read(folder / "take.mid").midi


def assert_released(sent: Sequence[tuple[float, mido.Message]]) -> None:
    """Every note that was struck is released, and every pedal goes up."""
    open_notes: Counter[tuple[int, int]] = Counter()
    pedals: dict[int, int] = {}
    for _, message in sent:
        if message.type == "note_on" and message.velocity:
            open_notes[message.channel, message.note] += 1
        elif message.type in ("note_on", "note_off"):
            open_notes[message.channel, message.note] -= 1
        elif message.type == "control_change" and message.control == 64:
            pedals[message.channel] = message.value
    assert all(count <= 0 for count in open_notes.values()), open_notes
    assert all(value < 64 for value in pedals.values())


# ---- batches: what is played is what would be saved ------------------------------------------------------------------


SONGS: dict[str, Callable[[Path], Path]] = {
    "riff": riff_song,
    "all in one track": type_0_song,
    "changing tempo": changing_song,
    "smpte": lambda path: riff_song(path, division=SMPTE_25),
    "meters": lambda path: song_in_bars(path, [(7, 8), (4, 4)] * 5, programs=(0, 40)),
    "pedal": lambda path: EXAMPLES / "piano_nocturne.mid",
    "orchestra": lambda path: EXAMPLES / "small_orchestra.mid",
}


@pytest.mark.parametrize("name", SONGS)
@pytest.mark.parametrize("options", [{}, {"loop": True}, {"keep_ending": True, "begin": "bar:6"}], ids=str)
def test_batches_add_up_to_the_result(name: str, options: dict[str, Any], model: Model, tmp_path: Path) -> None:
    source = SONGS[name](tmp_path / "song.mid")
    length_s = score.read(source).length_s
    passage = written(midiex.start(source, length_s + 40, model=model, candidates=1, **options))
    parts = list(batches(passage))
    assert len(parts) > 2
    assert [b.first_bar for b in parts[1:]] == list(itertools.accumulate(len(b.bar_s) - 1 for b in parts[:-1]))
    assert sum(b.seconds for b in parts) == pytest.approx(passage.length_s, abs=0.5)
    for batch in parts:
        assert list(batch.bar_s) == sorted(set(batch.bar_s)) and batch.bar_s[0] == 0
        times = [event.at_s for event in batch.events]
        assert times == sorted(times) and min(times, default=0) >= 0 and max(times, default=0) <= batch.seconds + 1e-9
    take, played = heard(passage)
    assert not played.stopped and played.seconds == pytest.approx(sum(b.seconds for b in parts))
    result, expected = saved(take, tmp_path), passage.midi()
    assert (result.type, result.ticks_per_beat) == (expected.type, expected.ticks_per_beat)
    end = (passage.line.end_tick, tuple(mido.MetaMessage("marker", text="loopEnd").bytes()))
    got = events_of(result)
    want = Counter({key: n for key, n in events_of(expected).items() if (key[0], key[2]) != end})
    if name == "pedal" or "keep_ending" in options:  # keys and pedals that are down at the end are let go of
        assert not want - got and all(bytes_[0] & 0xF0 in (0x80, 0xB0) for _, _, bytes_ in (got - want))
    else:
        assert got == want


@pytest.mark.parametrize("name", ["riff", "pedalled"])
def test_what_is_written_later_may_reach_back_over_the_line(name: str, model: Model, tmp_path: Path) -> None:
    """Chunks begin a little before their bar line, and their last notes ring, under the pedal, into the next ones."""
    bar = 4 * 480
    events = [tempo(0, 120)]
    for i in range(8):
        events += note(i * bar, 480, 50 + i % 3) + note(i * bar + 960, 240, 57)
        events += [(i * bar + 40, mido.Message("control_change", control=64, value=127))]
        events += [((i + 1) * bar, mido.Message("control_change", control=64, value=0))]
    source = riff_song(tmp_path / "song.mid") if name == "riff" else write_midi(tmp_path / "song.mid", [events])
    passage = written(midiex.start(source, 120, model=model, begin="end", candidates=1))
    for chunk in passage.chunks():
        first = (chunk.rows[:, BAR] == 0) & (chunk.rows[:, POSITION] == 0)
        assert first.any()
        chunk.rows[first, MICRO] = 0
        for row in chunk.rows:  # up to the second beat of the next chunk
            beats = 4 * (chunk.bars - row[BAR]) + 1 + row[PITCH] % 3 - row[POSITION] / 12
            row[DURATION] = np.argmin(np.abs(DURATIONS - 24 * beats))
    take, _ = heard(passage)
    got, want = events_of(saved(take, tmp_path)), events_of(passage.midi())
    assert not want - got
    assert all(data[0] & 0xF0 in (0x80, 0xB0) for _, _, data in got - want)  # let go at the end


def test_the_song_itself_is_kept_event_for_event(model: Model, tmp_path: Path) -> None:
    source = type_0_song(tmp_path / "song.mid")
    passage = midiex.start(source, 40, model=model, begin="end")
    take, _ = heard(passage)
    result, start = saved(take, tmp_path), passage.line.start_tick
    assert score.events_before(result, start) == score.events_before(passage.song.midi, start)


def test_the_song_comes_first_and_in_time(model: Model, tmp_path: Path) -> None:
    """With a tempo that changes, every note of the song sounds when it should, and new ones only after them."""
    passage = midiex.start(changing_song(tmp_path / "song.mid"), 60, model=model, begin="end")
    sink = Fake()
    heard(passage, sink)
    begin_s = sink.sent[0][0]
    strikes = [(at - begin_s, m.note) for at, m in sink.sent if m.type == "note_on" and m.velocity]
    song = passage.song
    own = [(float(song.tempo.to_seconds(tick)), m.note) for tick, _, m in score.walk(song.midi) if score.is_on(m)]
    assert [pitch for _, pitch in strikes[: len(own)]] == [pitch for _, pitch in own]
    assert [at for at, _ in strikes[: len(own)]] == pytest.approx([at for at, _ in own], abs=1e-6)
    assert len(strikes) > len(own) and strikes[len(own)][0] >= passage.start_s - 1e-6
    assert max(sink.late) < 1e-9 and [at for at, _ in sink.sent] == sorted(at for at, _ in sink.sent)


def test_a_voice_that_enters_late_is_set_up_before_its_first_note(model: Model, tmp_path: Path) -> None:
    """Its program and dials belong to the beginning of the new music, which has been played by then."""
    bar = 4 * 480
    other: list[tuple[int, Any]] = [(0, mido.Message("program_change", channel=1, program=40))]
    for i in range(8):
        other += note(i * bar, bar, 50 + i % 3, channel=1)
    bend = [(7 * bar + 100, mido.Message("pitchwheel", channel=1, pitch=3000))]
    source = write_midi(tmp_path / "song.mid", [[tempo(0, 120), *riff(8)], [*other, *bend]])
    passage = written(midiex.start(source, 90, model=model, begin="end", candidates=1))
    chunks = list(passage.chunks())
    early = chunks[:4]
    late = next(chunk for chunk in chunks[4:] if (chunk.rows[:, PROGRAM] == 40).any())
    quiet = [replace(c, rows=c.rows[c.rows[:, PROGRAM] != 40]) if c in early else c for c in chunks]

    def again() -> Iterator[Any]:
        passage.written.clear()
        for chunk in quiet:
            passage.written.append(chunk)
            yield chunk

    passage.chunks = again  # type: ignore[method-assign]
    sink = Fake()
    take, _ = heard(passage, sink)
    begin_s = sink.sent[0][0]
    new = [(at - begin_s, m) for at, m in sink.sent if at - begin_s > passage.start_s - 1e-6 and m.channel == 1]
    new = [(at, m) for at, m in new if not (m.type == "note_off" and at < passage.start_s + 1e-6)]
    assert passage.start_s + 10 < new[0][0] <= late.end_s
    kinds = [m.type for _, m in new]
    assert kinds.index("pitchwheel") < kinds.index("note_on")
    bends = [m.pitch for _, m in new if m.type == "pitchwheel"]
    assert bends == [0]
    notes = lambda midi: Counter(key for key in events_of(midi).elements() if key[2][0] & 0xE0 == 0x80)  # noqa: E731
    assert notes(saved(take, tmp_path)) == notes(passage.midi())


def test_only_what_instruments_understand_is_sent(tmp_path: Path) -> None:
    song = score.read(type_0_song(tmp_path / "song.mid"))
    kinds = {message.type for message in song.midi.tracks[0] if playable(message)}
    assert kinds == {"sysex", "program_change", "control_change", "pitchwheel", "note_on", "note_off"}
    assert {message.type for message in song.midi.tracks[0]} - kinds == {
        *("track_name", "set_tempo", "time_signature", "lyrics", "end_of_track"),
    }


# ---- the player: time, stops, waits ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    """Thirty bars of two seconds, with a pedal that is never let go in the song."""
    folder = tmp_path_factory.mktemp("parts")
    pedal = (9 * 480, mido.Message("control_change", channel=0, control=64, value=127))
    source = write_midi(folder / "song.mid", [[tempo(0, 120), pedal, *riff(8)]])
    return list(batches(midiex.start(source, 60, model=model, begin="end", candidates=1)))


def stopped_at(
    parts: list[Batch], times: Sequence[float], take: Take | None, lead_s: float = 0.0
) -> tuple[Fake, Played]:
    """Play, with a stop at each of some times after the music's beginning."""
    left = list(times)

    def at(now: float) -> None:
        while left and now - sink.begin_s >= left[0]:  # type: ignore[attr-defined]
            left.pop(0)
            player.stop()

    sink = Fake(lead_s, at)
    sink.begin_s = 100.0 + lead_s + 0.1  # type: ignore[attr-defined]
    player = Player(sink, Given(parts), take)
    return sink, player.play()


@pytest.mark.parametrize("lead_s", [0.0, 0.25])
@pytest.mark.parametrize("when", [0.0, 0.3, 1.99, 2.0, 7.123, 15.5, 16.0, 23.4, 41.0, 55.5, 59.99])
def test_a_stop_falls_on_the_next_bar_line(parts: list[Batch], when: float, lead_s: float) -> None:
    sink, played = stopped_at(parts, [when], None, lead_s)
    begin_s = sink.begin_s  # type: ignore[attr-defined]
    end_s = max([at - begin_s for at, _ in sink.sent], default=0.0)
    assert (played.stopped or played.seconds == 60) and not sink.silenced
    assert played.seconds / 2 == pytest.approx(round(played.seconds / 2), abs=1e-6)
    assert when - 1e-6 <= played.seconds <= when + 2 + lead_s + 0.051
    assert end_s == pytest.approx(played.seconds, abs=1e-6)
    assert played.bars == round(played.seconds / 2)
    assert_released(sink.sent)
    assert all(m.type != "note_on" for at, m in sink.sent if at - begin_s > played.seconds - 1e-6)


@pytest.mark.parametrize("when", np.linspace(0.01, 59.0, 23).tolist())
def test_a_second_stop_ends_at_once_and_leaves_nothing_sounding(parts: list[Batch], when: float) -> None:
    sink, played = stopped_at(parts, [when, when], None)
    assert played.stopped and sink.silenced == 1
    assert played.seconds <= when + 0.06
    assert sink.time_s - sink.begin_s <= when + 0.06  # type: ignore[attr-defined]
    assert_released(sink.sent)


def test_nothing_sounds_after_the_end(parts: list[Batch]) -> None:
    sink, played = stopped_at(parts, [], None)
    assert not played.stopped and played.bars == 30 and played.seconds == pytest.approx(60)
    assert_released(sink.sent)


def test_music_that_is_not_composed_yet_is_waited_for_on_a_bar_line(parts: list[Batch]) -> None:
    waits: list[int] = []
    bars: list[Bar] = []
    sink = Fake()
    ends = list(itertools.accumulate(batch.seconds for batch in parts))
    third = 100.1 + ends[1] + 7.0  # seven seconds late
    source = Given(parts, sink, [0.0, 0.0, third, 0.0])
    take = None
    played = Player(sink, source, take, bars.append, waits.append).play()
    assert played.waits == 1 and played.waited_s == pytest.approx(7.0, abs=0.1)
    assert waits == [parts[2].first_bar + 1]
    assert played.seconds == pytest.approx(60) and played.bars == 30 and not played.stopped
    on_time, _ = stopped_at(parts, [], None)
    for (at, message), (usual, same) in zip(sink.sent, on_time.sent, strict=True):
        assert message == same
        assert at - usual == pytest.approx(0.0 if usual - 100.1 < ends[1] - 1e-6 else played.waited_s, abs=1e-6) or (
            usual - 100.1 == pytest.approx(ends[1], abs=1e-6)  # on the line: releases before the wait, strikes after it
        )
    numbers = [bar.number for bar in bars]
    assert numbers == list(range(1, 31)) and bars[0].ahead_s == pytest.approx(60)


def test_a_small_delay_is_no_wait(parts: list[Batch]) -> None:
    sink = Fake()
    there = 100.1 + parts[0].seconds + LATE_S / 2
    played = Player(sink, Given(parts, sink, [0.0, there])).play()
    assert played.waits == 0
    assert sink.sent[-1][0] == pytest.approx(100.1 + 60, abs=1e-6)


def test_a_stop_while_the_music_waits_is_heeded(parts: list[Batch]) -> None:
    sink = Fake()
    player = Player(sink, Given(parts, sink, [0.0, 1e9]), on_wait=lambda bar: player.stop())
    played = player.play()
    assert played.stopped and played.seconds == pytest.approx(parts[0].seconds)
    assert_released(sink.sent)


@pytest.mark.parametrize("when", [3.3, 17.0, 29.2, 44.4])
def test_what_is_saved_is_what_was_played(
    parts: list[Batch], when: float, model: Model, song: Path, tmp_path: Path
) -> None:
    take = Take(score.read(song).midi)
    sink, played = stopped_at(parts, [when], take)
    midi = saved(take, tmp_path)
    result = score.read(tmp_path / "take.mid")
    begin_s = sink.begin_s  # type: ignore[attr-defined]
    sent: defaultdict[tuple[int, ...], list[float]] = defaultdict(list)
    kept: defaultdict[tuple[int, ...], list[float]] = defaultdict(list)
    for at, message in sink.sent:
        sent[tuple(message.bytes())].append(at - begin_s)
    for tick, _, message in score.walk(midi):
        if (message := playable(message)) is not None:
            kept[tuple(message.bytes())].append(float(result.tempo.to_seconds(tick)))
    assert sent.keys() == kept.keys()
    for key, times in sent.items():
        assert kept[key] == pytest.approx(sorted(times), abs=2e-3), key
    (note_of_ours,) = provenance.notes_in(result) or (None,)
    if played.seconds > 16:
        assert note_of_ours is not None and note_of_ours.leads_to == "open"
        assert all(16 + offset / 960 < played.seconds for offset, _, _ in note_of_ours.chunks)
        assert len(note_of_ours.chunks) >= 1
    else:
        assert note_of_ours is None


# ---- composing ahead -------------------------------------------------------------------------------------------------


def test_a_full_queue_makes_the_composer_wait(parts: list[Batch]) -> None:
    ahead = Ahead(limit_s=20)
    put: list[int] = []

    def produce() -> None:
        for number in range(100):
            if not ahead.put(parts[1]):
                return
            put.append(number)
        ahead.end()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    most = int(np.ceil(20 / parts[1].seconds))
    for taken in range(30):
        assert ahead.ready(10)
        assert ahead.ahead_s <= 20 + parts[1].seconds and len(put) <= taken + most + 1
        ahead.take()
    ahead.close()
    thread.join(10)
    assert not thread.is_alive() and len(put) < 100


def test_what_composing_raises_reaches_who_plays(parts: list[Batch]) -> None:
    ahead = Ahead()
    ahead.put(parts[0])
    ahead.end(BadInput("No more."))
    sink = Fake()
    with pytest.raises(BadInput, match="No more"):
        Player(sink, ahead).play()
    assert_released(sink.sent)
    assert any(message.type == "note_on" for _, message in sink.sent)


def test_laps_follow_without_end_and_without_growing(model: Model, tmp_path: Path) -> None:
    """The song, new music that leads back, the song, other new music …; the passages played are forgotten."""
    source = type_0_song(tmp_path / "song.mid", bars=4)
    passages: list[weakref.ref[Passage]] = []

    def lap(number: int) -> Passage:
        passage = midiex.start(source, 30, loop=True, model=model, seed=number, candidates=1)
        passages.append(weakref.ref(passage))
        return passage

    sink, bars = Fake(), []
    first = lap(0)

    def on_bar(bar: Bar) -> None:
        bars.append(bar)
        if sum(b.number == 1 for b in bars) == 4:
            player.stop()

    take = Take(first.song.midi)
    with composing(first, lap, limit_s=5) as ahead:
        player = Player(sink, ahead, take, on_bar)
        played = player.play()
    gc.collect()
    assert played.stopped and played.waits == 0 and len(passages) >= 4
    assert [ref() is None for ref in passages[1:-2]] == [True] * (len(passages) - 3)
    assert sum(message.type == "sysex" for _, message in sink.sent) == 1
    assert_released(sink.sent)
    take.save_as(tmp_path / "take.mid")
    result = score.read(tmp_path / "take.mid")
    notes = provenance.notes_in(result)
    assert [n.seed for n in notes] == [0, 1, 2]
    per_lap = first.line.end_tick
    own = [[(t, m.bytes()) for t, _, m in score.walk(first.song.midi) if score.is_on(m) and t < first.line.start_tick]]
    for number in range(1, 3):
        again = [
            (t - number * per_lap, m.bytes())
            for t, _, m in score.walk(result.midi)
            if score.is_on(m) and number * per_lap <= t < number * per_lap + first.line.start_tick
        ]
        assert again == own[0]
    new = [
        [
            (t - n.tick, m.bytes())
            for t, _, m in score.walk(result.midi)
            if score.is_on(m) and n.tick <= t < n.tick + per_lap - first.line.start_tick
        ]
        for n in notes
    ]
    assert new[0] and new[0] != new[1] != new[2]


# ---- instruments -----------------------------------------------------------------------------------------------------


class _Output:
    def __init__(self) -> None:
        self.sent: list[mido.Message] = []
        self.panics = self.closed = 0

    def send(self, message: mido.Message) -> None:
        self.sent.append(message)

    def panic(self) -> None:
        self.panics += 1

    def close(self) -> None:
        self.closed += 1


def test_ports_go_by_their_name_or_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["FLUID Synth (1):port 128:0", "Piano", "Digital Piano 2"]
    opened: list[str] = []
    monkeypatch.setattr(mido, "get_output_names", lambda: names)
    monkeypatch.setattr(mido, "open_output", lambda name: opened.append(name) or _Output())
    assert port_names() == names
    for name in ("fluid", "Piano", "digital"):
        port = open_port(name)
    assert opened == [names[0], names[1], names[2]]
    message = mido.Message("note_on", note=60)
    port.send(port.now(), message)
    port.silence()
    port.close()
    assert (port.port.sent, port.port.panics, port.port.closed) == ([message], 1, 1)
    for name, said in (("piano", "2 MIDI ports"), ("Organ", "No MIDI ports")):
        with pytest.raises(BadInput, match=f"^{said} are called {name}; .*Digital Piano 2") as caught:
            open_port(name)
        assert "\n" not in str(caught.value)


def test_a_missing_port_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[str]:
        raise ModuleNotFoundError("No module named 'rtmidi'")

    monkeypatch.setattr(mido, "get_output_names", missing)
    with pytest.raises(MissingPart, match="pip install python-rtmidi"):
        open_port("any")

    def broken() -> list[str]:
        raise RuntimeError("MidiOutAlsa::initialize: error creating ALSA sequencer client object.")

    monkeypatch.setattr(mido, "get_output_names", broken)
    with pytest.raises(MissingPart, match="ALSA sequencer client object\\); write to a file with --out"):
        port_names()


def test_real_time_passes_for_ports() -> None:
    port = Port(_Output())
    before = port.now()
    port.wait(0.01)
    assert port.now() - before >= 0.01


@needs_fluidsynth
def test_without_a_sound_device_one_sentence_says_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingPart, match=r"driver .*\); try another with --driver, .*--out.*--port") as caught:
        Speakers(driver="no-such-driver")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@needs_fluidsynth
def test_fluidsynth_plays_in_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver "file" takes the place of a sound device; it runs in real time."""
    monkeypatch.chdir(tmp_path)
    beat = 480
    events = [tempo(0, 240)]
    for i in range(4):
        events += note(i * beat, beat if i else 0, 60 + i, 110)  # the first one has no length
    events += [(0, mido.Message("program_change", program=19)), (beat, mido.Message("pitchwheel", pitch=100))]
    song = score.read(write_midi(tmp_path / "song.mid", [events]))
    lines = (0.0, 1.0)
    timed = [
        midiex.play.Timed(float(song.tempo.to_seconds(tick)), tick, track, i, message)
        for i, (tick, track, message) in enumerate(score.walk(song.midi))
        if message.type != "end_of_track"
    ]
    speakers = Speakers(driver="file")
    try:
        played = Player(speakers, Given([Batch(0, lines, (0, 4 * beat), tuple(timed))])).play()
        assert played.waits == 0
        speakers.wait(1.5 * speakers.lead_s + 0.2)
        assert speakers.now() >= 1.0
    finally:
        speakers.close()
    (path,) = tmp_path.glob("fluidsynth.*")
    if path.suffix == ".wav":
        sound, rate = soundfile.read(path)
        assert np.abs(sound).max() > 0.01
        assert np.abs(sound[-rate // 100 :]).max() < 0.05  # nothing hangs


def test_rows_are_not_touched(model: Model, song: Path) -> None:
    """Playing leaves the passage as extending does."""
    one, other = (midiex.start(song, 40, model=model, seed=3) for _ in range(2))
    heard(one)
    list(other.chunks())
    assert [c.rows[:, BAR].tolist() for c in one.written] == [c.rows[:, BAR].tolist() for c in other.written]
