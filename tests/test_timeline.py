"""The time line: new bars go on in the song's meter and tempo, breathe as it breathes, and end where they should."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import bar_ticks, song_in_bars
from songs import SMPTE_25, changing_song, riff_song

from midiex import score, timeline
from midiex.errors import BadInput
from midiex.score import Song
from midiex.timeline import MAX_STRETCH, Timeline

Signature = tuple[int, int]
Tempi = Sequence[tuple[int, int]]
Make = Callable[..., Song]

C, W, S = (4, 4), (3, 4), (7, 8)  # common time, waltz, seven eighths
BAR = 4 * 480


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A song with one bar a signature."""

    def made(signatures: Sequence[Signature], tempi: Tempi = ((0, 500_000),), tpq: int = 480) -> Song:
        return score.read(song_in_bars(tmp_path / "song.mid", signatures, tempi, tpq))

    return made


def new_beats(line: Timeline) -> list[float]:
    """Lengths of the new bars."""
    return line.grid.bar_beats[line.before : line.before + line.new].tolist()


def new_beat_s(line: Timeline) -> np.ndarray:
    """Seconds a beat of each new bar."""
    span = slice(line.before, line.before + line.new)
    return line.grid.bar_s[span] / line.grid.bar_beats[span]


def has_the_song_before(line: Timeline, song: Song) -> bool:
    kept = slice(line.before + 1)
    return np.array_equal(line.grid.ticks[kept], song.grid.ticks[kept]) and np.allclose(
        line.grid.seconds[kept], song.grid.seconds[kept]
    )


# ---- meter -----------------------------------------------------------------------------------------------------------

METERS: dict[str, tuple[list[Signature], list[Signature]]] = {  # the song's bars, and those to come in turn
    "common time": ([C] * 8, [C]),
    "a waltz": ([W] * 9, [W]),
    "seven eighths": ([S] * 7, [S]),
    "twelve eighths": ([(12, 8)] * 6, [(12, 8)]),
    "one bar": ([(5, 4)], [(5, 4)]),
    "three bars": ([W] * 3, [W]),
    "seven and eight": ([S, C] * 4, [S, C]),
    "eight and seven": ([S, C] * 4 + [S], [C, S]),
    "two, two and a short one": ([C, C, (2, 4)] * 3, [C, C, (2, 4)]),
    "a new meter half-way": ([C] * 8 + [W] * 6, [W]),
    "a new pattern half-way": ([C] * 8 + [S, W] * 3, [S, W]),
    "one odd bar at last": ([C] * 8 + [(2, 4)], [C]),
    "one odd bar before the last two": ([C] * 6 + [(2, 4)] + [C] * 2, [C]),
    "an odd bar at first": ([(2, 4)] + [C] * 6, [C]),
    "two odd bars at last": ([C] * 8 + [W] * 2, [C]),
}


@pytest.mark.parametrize("name", METERS)
def test_new_bars_go_on_in_the_songs_pattern(name: str, make: Make) -> None:
    signatures, coming = METERS[name]
    song = make(signatures)
    line = timeline.go_on(song, len(signatures), song.length_s + 40)
    assert line.new > 8 and has_the_song_before(line, song)
    expected = list(itertools.islice(itertools.cycle(coming), line.new))
    assert new_beats(line) == [4 * n / d for n, d in expected]
    events, last = [], signatures[-1]
    for tick, meter in zip(bar_ticks(expected)[:-1], expected, strict=True):
        if meter != last:  # and only there
            events.append((line.start_tick + tick, *meter))
        last = meter
    assert list(line.meters) == events
    assert line.tempi == ()


def test_what_comes_later_in_the_song_does_not_count(make: Make) -> None:
    song = make([C] * 6 + [W] * 6, [(0, 500_000), (6 * BAR, 400_000)])
    line = timeline.go_on(song, 6, 40)
    assert set(new_beats(line)) == {4.0} and (line.meters, line.tempi) == ((), ())
    assert line.tempo.us_per_beat_at(line.start_tick) == line.tempo.us_per_beat_at(line.end_tick) == 500_000


# ---- tempo -----------------------------------------------------------------------------------------------------------


def test_a_steady_tempo_stays_one_tempo(make: Make) -> None:
    song = make([C] * 8, [(0, 487_805)])
    line = timeline.go_on(song, 8, 300)
    assert line.tempi == () and len(line.tempo.ticks) == 1


def test_unsteadiness_that_nobody_hears_is_not_repeated(make: Make) -> None:
    tempi = [(480 * beat, 500_000 + 900 * (beat % 5)) for beat in range(32)]
    line = timeline.go_on(make([C] * 8, tempi), 8, 60)
    assert line.tempi == () and line.tempo.us_per_beat_at(line.end_tick) == tempi[-1][1]


def sway(bars: int, by: float, period: int) -> np.ndarray:
    """Ratios around 1, those of one period being different from one another."""
    return 1 + by * np.sin(2 * np.pi * (np.arange(bars) + 0.5) / period)


@pytest.mark.parametrize("bars", [16, 29, 32, 40])
@pytest.mark.parametrize("by", [0.015, 0.06])
def test_rubato_by_bar_is_repeated_as_it_was(bars: int, by: float, make: Make) -> None:
    ratios = sway(bars, by, 8)
    song = make([C] * bars, [(bar * BAR, round(500_000 * ratio)) for bar, ratio in enumerate(ratios)])
    line = timeline.go_on(song, bars, song.length_s + 240)
    assert new_beat_s(line) / 0.5 == pytest.approx(sway(bars + line.new, by, 8)[bars:], abs=1e-4)


def test_rubato_by_beat_is_repeated_as_it_was(make: Make) -> None:
    """Every fourth beat is held, the second hurried."""
    of_beat = (0.98, 0.93, 1.0, 1.15)
    song = make([C] * 16, [(480 * beat, round(600_000 * of_beat[beat % 4])) for beat in range(64)])
    line = timeline.go_on(song, 16, 300)
    beats = np.arange(line.start_tick, line.end_tick, 480)
    us = np.array([line.tempo.us_per_beat_at(tick) for tick in beats])
    assert us / 600_000 == pytest.approx(np.resize(of_beat, len(us)), abs=1e-4)
    assert {tick % 480 for tick, _ in line.tempi} == {0}


@pytest.mark.parametrize("by_beat", [False, True])
def test_the_tempo_does_not_drift(by_beat: bool, make: Make) -> None:
    rng = np.random.default_rng(3)
    events = 64 if by_beat else 16
    step = 480 if by_beat else BAR
    us = [round(500_000 * ratio) for ratio in 1 + 0.04 * rng.uniform(-1, 1, events)]
    song = make([C] * 16, [(i * step, one) for i, one in enumerate(us)])
    line = timeline.go_on(song, 16, song.length_s + 300)
    seconds = line.grid.seconds[line.before : line.before + line.new + 1]
    phrases = np.diff(seconds[::16])  # each the song's sixteen bars once more
    assert len(phrases) >= 9
    assert phrases == pytest.approx(phrases[0], abs=1e-3)
    assert phrases[0] == pytest.approx(float(song.grid.seconds[16]), rel=1e-4)


def test_pauses_do_not_change_the_tempo_around_them(make: Make) -> None:
    us = np.full(32, 500_000)
    us[[4, 13, 15, 30]] = 900_000
    song = make([C] * 32, [(bar * BAR, int(one)) for bar, one in enumerate(us)])
    assert new_beat_s(timeline.go_on(song, 32, 200))[:32] * 1e6 == pytest.approx(us)


def test_phrases_breathe_where_the_meter_alternates(make: Make) -> None:
    signatures = [S, C] * 6
    starts = bar_ticks(signatures)
    song = make(signatures, [(tick, 450_000 if i % 2 else 500_000) for i, tick in enumerate(starts[:-1])])
    line = timeline.go_on(song, 12, song.length_s + 60)
    ratio = new_beat_s(line)[1::2] / new_beat_s(line)[::2][: line.new // 2]
    assert ratio == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("later", [5, 6, 8, 12, 16])
@pytest.mark.parametrize("us", [400_000, 900_000])
def test_a_new_tempo_goes_on(later: int, us: int, make: Make) -> None:
    song = make([C] * (16 + later), [(0, 500_000), (16 * BAR, us)])
    line = timeline.go_on(song, 16 + later, song.length_s + 60)
    assert line.tempi == ()
    assert new_beat_s(line) == pytest.approx(us / 1e6)


def test_a_new_tempo_that_breathes_goes_on_breathing(make: Make) -> None:
    us = [500_000] * 16 + [round(800_000 * ratio) for ratio in sway(16, 0.05, 4)]
    song = make([C] * 32, [(bar * BAR, one) for bar, one in enumerate(us)])
    line = timeline.go_on(song, 32, song.length_s + 120)
    got = new_beat_s(line)[:16]
    assert got / 0.8 == pytest.approx(sway(16, 0.05, 4), abs=1e-4)


def test_after_slowing_down_the_usual_tempo_returns(tmp_path: Path) -> None:
    song = score.read(changing_song(tmp_path / "song.mid"))
    line = timeline.go_on(song, 7, 60)  # cut before the last bar, which slows down
    assert line.tempo.us_per_beat_at(line.start_tick) == 500_000
    assert line.tempi == ()  # that the tempo was halved once is no habit
    line = timeline.go_on(song, 8, 60)
    assert line.tempo.us_per_beat_at(line.start_tick - 1) == 750_000
    assert line.tempi == ((line.start_tick, 500_000),)


def test_slowing_down_before_every_phrase_is_a_habit(make: Make) -> None:
    us = np.full(32, 500_000)
    us[7::8] = 600_000
    song = make([C] * 32, [(bar * BAR, int(one)) for bar, one in enumerate(us)])
    assert new_beat_s(timeline.go_on(song, 32, 200))[:24] * 1e6 == pytest.approx(us[:24])
    us[:-1] = 500_000  # once, at the end
    song = make([C] * 32, [(bar * BAR, int(one)) for bar, one in enumerate(us)])
    assert new_beat_s(timeline.go_on(song, 32, 200)) == pytest.approx(0.5)


@pytest.mark.parametrize("exact", [False, True])
def test_the_last_new_bars_slow_down_as_the_song_did(exact: bool, make: Make) -> None:
    us = [500_000] * 12 + [550_000, 700_000]
    song = make([C] * 14, [(bar * BAR, one) for bar, one in enumerate(us)])
    line = timeline.go_on(song, 12, 100.0, exact=exact, slowing=range(12, 14))
    assert line.end_s == pytest.approx(100, abs=1e-3) if exact else 97 < line.end_s <= 100
    stretch = new_beat_s(line)[0] / 0.5
    assert stretch == pytest.approx(1, abs=MAX_STRETCH if exact else 1e-9)
    assert new_beat_s(line)[:-2] == pytest.approx(0.5 * stretch)
    assert new_beat_s(line)[-2:] == pytest.approx([0.55 * stretch, 0.7 * stretch], rel=1e-5)
    longer = timeline.go_on(song, 12, 200.0, slowing=range(12, 14))
    assert len(longer.tempi) == 2 and longer.tempi[0][0] == longer.end_tick - 2 * BAR
    with_one_bar = timeline.go_on(song, 12, 26.3, slowing=range(12, 14))
    assert with_one_bar.new == 1 and with_one_bar.tempi == ()


# ---- length ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [18.0, 19.9, 20.0, 33.3, 299.5])
def test_otherwise_the_result_is_the_longest_whole_bars_make(seconds: float, make: Make) -> None:
    song = make([C] * 8)
    line = timeline.go_on(song, 8, seconds)
    assert seconds - 2 < line.end_s <= seconds
    assert line.end_tick == line.grid.ticks[-1] and line.after is None


def test_a_kept_ending_counts(make: Make) -> None:
    song = make([C] * 12, [(0, 500_000), (10 * BAR, 1_000_000)])  # the last two bars last four seconds each
    line = timeline.go_on(song, 10, 61, after=10)
    assert (line.before, line.after) == (10, 10)
    assert line.start_s == 20 and line.end_s == 52  # 61 less 8, down to a bar line
    assert line.tempi == ((line.end_tick, 1_000_000),)
    assert line.grid.bar_s[-2:].tolist() == [4, 4]
    assert float(line.grid.seconds[-1]) == 60


@pytest.mark.parametrize("seconds", [17.0, 17.9])
def test_without_room_for_a_bar_nothing_is_made(seconds: float, make: Make) -> None:
    song = make([C] * 8)
    with pytest.raises(BadInput, match=r"ask for at least 18 s\.$") as caught:
        timeline.go_on(song, 8, seconds)
    assert "16.0 s" in str(caught.value) and f"{seconds:.1f} s" in str(caught.value)
    assert timeline.go_on(song, 8, 18).new == 1
    with pytest.raises(BadInput):
        timeline.go_on(song, 6, seconds, after=6)


def test_more_bars_than_a_song_may_have_are_refused(make: Make) -> None:
    song = make([C] * 2, [(0, 30_000)])
    with pytest.raises(BadInput, match="shorter"):
        timeline.go_on(song, 2, 6 * 3600)


# ---- ends on the second ----------------------------------------------------------------------------------------------


def tempo_change(line: Timeline, song: Song) -> float:
    """How far the tempo of the new bars is from that of the same bars without `exact`."""
    plain = timeline.go_on(song, line.before, line.end_s + 5, line.after)
    count = min(line.new, plain.new)
    return float(np.abs(new_beat_s(line)[:count] / new_beat_s(plain)[:count] - 1).max())


@pytest.mark.parametrize("seconds", [90.0, 123.456, 300.0, 301.0, 1200.7])
@pytest.mark.parametrize("us", [250_000, 487_805, 1_000_000])
def test_exact_ends_on_the_second(seconds: float, us: int, make: Make) -> None:
    song = make([C] * 8, [(0, us)])
    line = timeline.go_on(song, 8, seconds, exact=True)
    assert line.end_s == pytest.approx(seconds, abs=1e-3)
    assert tempo_change(line, song) <= MAX_STRETCH + 1e-5
    if line.new * us > 200e6 / 4:  # room to stretch: nothing is cut
        assert line.end_tick == line.grid.ticks[-1]


@pytest.mark.parametrize("division", [24, 96, 480, 960])
@pytest.mark.parametrize("seconds", [17.99, 18.0, 19.0, 20.31, 24.5])
def test_a_short_new_part_is_cut_to_the_second(seconds: float, division: int, make: Make) -> None:
    song = make([C] * 8, tpq=division)
    line = timeline.go_on(song, 8, seconds, exact=True)
    tick_s = 0.5 / division
    assert line.end_s == pytest.approx(seconds, abs=max(1e-3, tick_s / 2 * 1.02))
    assert tempo_change(line, song) <= MAX_STRETCH + 1e-5
    assert line.grid.ticks[-2] < line.end_tick <= line.grid.ticks[-1]


def test_exact_holds_where_the_song_breathes(make: Make) -> None:
    song = make([C] * 16, [(480 * b, round(500_000 * r)) for b, r in enumerate(sway(64, 0.08, 7))])
    for seconds in (61.0, 120.0, 300.0):
        line = timeline.go_on(song, 16, seconds, exact=True)
        assert line.end_s == pytest.approx(seconds, abs=1e-3)
        assert tempo_change(line, song) <= MAX_STRETCH + 1e-4


def test_time_in_frames_is_cut_to_the_second(tmp_path: Path) -> None:
    song = score.read(riff_song(tmp_path / "song.mid", 8, SMPTE_25))
    for seconds in (19.1, 45.678):
        line = timeline.go_on(song, 8, seconds, exact=True)
        assert line.end_s == pytest.approx(seconds, abs=1e-3)  # a tick is a millisecond
        assert line.tempi == () and line.end_tick < line.grid.ticks[-1]
    assert timeline.go_on(song, 8, 45.678).end_s == 44


def test_exact_counts_the_kept_ending(make: Make) -> None:
    song = make([C] * 12, [(0, 500_000), (10 * BAR, 1_000_000)])
    tail_s = song.length_s - 20
    for seconds in (130.0, 131.1, 300.0):
        line = timeline.go_on(song, 10, seconds, after=10, exact=True)
        assert line.end_s + tail_s == pytest.approx(seconds, abs=1e-3)
        assert line.end_tick == line.grid.ticks[10 + line.new]
        assert line.tempi[-1] == (line.end_tick, 1_000_000)
        assert line.tempo.us_per_beat_at(line.start_tick) == pytest.approx(500_000, rel=MAX_STRETCH)
        assert float(line.tempo.to_seconds(song.end_tick + line.end_tick - line.start_tick)) == pytest.approx(
            seconds, abs=1e-3
        )


def test_a_kept_ending_that_cannot_fall_on_the_second_is_refused_with_lengths_that_can(make: Make) -> None:
    song = make([C] * 12)
    with pytest.raises(BadInput, match=r"ask for about ([\d.]+ or )*[\d.]+ s\.$") as caught:
        timeline.go_on(song, 10, 29.0, after=10, exact=True)
    advised = [float(word) for word in str(caught.value).split("about ")[1].split() if word[0].isdigit()]
    assert len(advised) >= 2
    for seconds in advised:
        line = timeline.go_on(song, 10, seconds, after=10, exact=True)
        assert line.end_s + song.length_s - 20 == pytest.approx(seconds, abs=1e-3)


# ---- inside a song ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "bars"), [(0.1, 1), (2, 1), (2.9, 1), (3.1, 2), (30, 15)])
def test_room_is_made_to_the_nearest_bar(seconds: float, bars: int, make: Make) -> None:
    song = make([C] * 12)
    line = timeline.insert(song, 5, seconds)
    assert (line.before, line.new, line.after) == (5, bars, 5)
    assert line.end_tick == (5 + bars) * BAR and len(line.grid) == 12 + bars
    assert (line.tempi, line.meters) == ((), ())


def test_tempo_and_meter_are_handed_back_after_inserted_bars(make: Make) -> None:
    """Waltz at 120 up to bar 8, then common time at 90: what is inserted between is a waltz at 120."""
    signatures = [W] * 8 + [C] * 8
    border = bar_ticks(signatures)[8]
    song = make(signatures, [(0, 500_000), (border, 666_667), (border + 6 * BAR, 750_000)])
    line = timeline.insert(song, 8, 15)
    assert new_beats(line) == [3.0] * 10 and new_beat_s(line) == pytest.approx(0.5)
    assert line.meters == ((line.end_tick, 4, 4),) and line.tempi == ((line.end_tick, 666_667),)
    shift_s = line.end_s - line.start_s
    assert line.grid.bar_beats[18:].tolist() == [4.0] * 8
    assert line.grid.seconds[18:] == pytest.approx(song.grid.seconds[8:] + shift_s, abs=1e-5)


def test_a_pattern_is_handed_back_where_it_was_left(make: Make) -> None:
    song = make([S, C] * 6)
    line = timeline.insert(song, 5, 9)
    assert new_beats(line) == list(itertools.islice(itertools.cycle([4.0, 3.5]), line.new))
    kept = [meter for meter in line.meters if meter[0] == line.end_tick]
    assert kept == ([] if line.new % 2 else [(line.end_tick, 4, 4)])


def test_what_is_rewritten_keeps_the_songs_bars(make: Make) -> None:
    song = make([W] * 3 + [C] * 5, [(0, 500_000), (3 * 1440, 700_000)])
    for first, after in ((0, 2), (2, 5), (6, 8)):
        line = timeline.rewrite(song, first, after)
        assert (line.before, line.new, line.after) == (first, after - first, after)
        assert (line.grid, line.tempo) == (song.grid, song.tempo)
        assert (line.tempi, line.meters) == ((), ())
        assert (line.start_tick, line.end_tick) == (song.grid.ticks[first], song.grid.ticks[after])
        assert line.end_s - line.start_s == pytest.approx(float(song.grid.bar_s[first:after].sum()))


@pytest.mark.parametrize(
    "new", [lambda song: timeline.go_on(song, 8, 60.0), lambda song: timeline.insert(song, 4, 8.0)]
)
def test_bars_too_short_to_be_any_are_not_gone_on_with(make: Make, new: Callable[[Song], Timeline]) -> None:
    assert new(make([C] * 8, ((0, 30_000),))).new > 60  # 0.12 s a bar, as fast as can be
    with pytest.raises(BadInput, match=r"bars of 0\.08 s .* correct its tempo"):
        new(make([C] * 8, ((0, 20_000),)))
