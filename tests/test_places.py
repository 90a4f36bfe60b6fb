"""Places and tracks as people type them: seconds, minutes or bars; numbers, names or instruments."""

from __future__ import annotations

from pathlib import Path

import mido
import pytest
from songs import note, tempo, type_0_song, write_midi

from midiex import score
from midiex.errors import BadInput
from midiex.places import bar_at, players, voices_of
from midiex.score import Song


@pytest.fixture
def song(tmp_path: Path) -> Song:
    """Eight bars of two seconds: a named piano, a bass without a name, drums, and a tempo track."""

    def named(name: str) -> tuple[int, mido.MetaMessage]:
        return 0, mido.MetaMessage("track_name", name=name)

    bar = 4 * 480
    piano = [named("Grand\x00 Left"), *[e for i in range(8) for e in note(i * bar, bar, 60 + i)]]
    bass = [(0, mido.Message("program_change", channel=1, program=33)), *note(0, bar, 40, channel=1)]
    drums = [named("kit"), *note(bar, bar, 36, channel=9)]
    return score.read(write_midi(tmp_path / "song.mid", [[tempo(0, 120)], piano, bass, drums]))


@pytest.mark.parametrize(
    ("place", "bar"),
    [
        ("0", 0), ("0:00", 0), ("2", 1), ("2.9", 1), ("3.1", 2), (".9", 0), ("4.", 2), ("0:04.5", 2), ("00:10", 5),
        ("0:15.9", 8), ("16", 8), ("16.9", 8), (10, 5), (10.0, 5), (9.9, 5), (" 10 ", 5), ("bar:1", 0), ("bar:3", 2),
        ("BAR: 8", 7), ("bar:9", 8),
    ],
)  # fmt: skip
def test_a_place_is_the_nearest_bar_line(place: str | float, bar: int, song: Song) -> None:
    assert bar_at(song, place) == bar


@pytest.mark.parametrize(
    "place", ["", "soon", "1:2:3", "-1", "1e1", "bar:", "bar:x", "bar:1.5", "bar 3", "nan", "inf", "1:", "٣x", None]
)
def test_what_is_no_place_is_refused(place: str, song: Song) -> None:
    with pytest.raises(BadInput, match=r"is no place in a song; give .*bar:12") as caught:
        bar_at(song, place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["bar:0", "bar:10", "bar:999"])
def test_bars_outside_the_song_are_refused(place: str, song: Song) -> None:
    with pytest.raises(BadInput, match=rf"has bars 1 to 8 and bar {place[4:]} was asked for"):
        bar_at(song, place)


@pytest.mark.parametrize("place", ["17.1", "1:00", "99999999999"])
def test_seconds_behind_the_end_are_refused(place: str, song: Song) -> None:
    with pytest.raises(BadInput, match="lasts 16.0 s and the place"):
        bar_at(song, place)


@pytest.mark.parametrize(
    ("wanted", "voices"),
    [
        ([], set()),
        (["1"], {0}),
        (["2"], {1}),
        (["grand left"], {0}),
        (["GRAND"], {0}),
        (["piano"], {0}),  # its instrument
        (["electric bass"], {1}),
        (["bass"], {1}),
        (["drum"], {2}),
        (["kit"], {2}),
        ([" kit ", "1"], {0, 2}),
        (["a"], {0, 1}),
    ],
)
def test_tracks_are_found_by_number_name_and_instrument(wanted: list[str], voices: set[int], song: Song) -> None:
    assert voices_of(song, wanted) == voices


@pytest.mark.parametrize("text", ["0", "4", "violin", "", "  ", "12"])
def test_a_track_that_is_not_there_is_refused_with_those_that_are(text: str, song: Song) -> None:
    with pytest.raises(BadInput, match=f"is called '{text}'; there are 1 .*, 2 .*, 3 ") as caught:
        voices_of(song, ["piano", text])
    assert "Grand Left" in str(caught.value) and "\x00" not in str(caught.value)


def test_a_track_number_means_all_that_is_played_there(tmp_path: Path) -> None:
    song = score.read(type_0_song(tmp_path / "song.mid"))
    assert voices_of(song, ["0"]) == set(range(len(song.voices))) and len(song.voices) == 4
    assert len(voices_of(song, ["electric piano"])) == 2


@pytest.mark.parametrize(
    ("solo", "mute", "drums", "playing"),
    [
        ([], [], None, {0, 1, 2}),
        (["piano", "kit"], [], None, {0, 2}),
        ([], ["bass"], None, {0, 2}),
        (["piano", "bass"], ["bass"], None, {0}),
        ([], [], True, {2}),
        ([], [], False, {0, 1}),
        (["piano", "kit"], [], False, {0}),
    ],
)
def test_who_plays(solo: list[str], mute: list[str], drums: bool | None, playing: set[int], song: Song) -> None:
    assert players(song, solo, mute, drums) == playing


@pytest.mark.parametrize(
    ("solo", "mute", "drums"), [([], ["1", "2", "3"], None), (["1"], ["1"], None), (["1"], [], True)]
)
def test_somebody_must_play(solo: list[str], mute: list[str], drums: bool | None, song: Song) -> None:
    with pytest.raises(BadInput, match="No track .* is left to play"):
        players(song, solo, mute, drums)
