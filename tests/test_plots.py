"""The piano roll: a colour a track, original and new told apart by every eye, drums apart, nothing half-written."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from songs import type_0_song

from midiex import plots, score
from midiex.errors import BadInput
from midiex.form_strip import runs
from midiex.plots import piano_roll


def write_song(path: Path, names: Sequence[str] = ("Lead", "Bass"), drums: bool = True, beats: int = 32) -> Path:
    """One note a beat and track at 120 beats a minute, drums on channel 10."""
    midi = mido.MidiFile(ticks_per_beat=480)
    rows = [(name, voice % 9, 72 - 7 * voice % 60) for voice, name in enumerate(names)] + [("Kit", 9, 38)] * drums
    for name, channel, pitch in rows:
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        for _ in range(beats):
            track.append(mido.Message("note_on", note=pitch, velocity=110, channel=channel))
            track.append(mido.Message("note_off", note=pitch, channel=channel, time=480))
        midi.tracks.append(track)
    midi.save(path)
    return path


def share(picture: np.ndarray, colour: str | Sequence[float], columns: slice = slice(None)) -> float:
    """Share of a (H, W, 4) picture's pixels that have the colour, below the strip of original and new."""
    part = picture[95:, columns, :3]
    return float((np.abs(part - np.array(to_rgb(colour))) < 0.02).all(axis=2).mean())


def muted(colour: str) -> np.ndarray:
    """The colour of a track in the original."""
    return np.array(to_rgb(colour)) + plots._MUTED * (1 - np.array(to_rgb(colour)))


def column(time_s: float, length_s: float) -> int:
    return round(plots.SIZE_PX[0] * (plots.LEFT + (plots.RIGHT - plots.LEFT) * time_s / length_s))


def strip_of(picture: np.ndarray) -> np.ndarray:
    """Brightness along the strip of original and new, without the names in its middle rows: (W,)."""
    return picture[79, :, :3].mean(axis=1)


def test_an_extension_is_told_from_its_original(tmp_path: Path) -> None:
    song, target = write_song(tmp_path / "a.mid"), tmp_path / "a.png"
    before = song.read_bytes()
    piano_roll(song, target, [(8.0, 16.0)], chunk_borders_s=[12.0], title="A song", bar_times_s=np.arange(0, 16, 2.0))
    picture = imread(target)
    assert picture.shape[:2] == (660, 1760)
    old, new = slice(column(0, 16), column(8, 16) - 3), slice(column(8, 16) + 3, column(16, 16))
    for colour in plots.TRACKS[:3]:  # every track keeps its colour, a little paler in the original
        assert share(picture, muted(colour), old) and not share(picture, colour, old)
        assert share(picture, colour, new) and not share(picture, muted(colour), new)
    assert share(picture, "white", old) > 0.5 and not share(picture, plots.TINT, old)
    assert share(picture, plots.TINT, new) > 0.5 and share(picture, "white", new) < 0.15  # the margin beneath
    assert np.median(strip_of(picture)[old]) > 0.85 and np.median(strip_of(picture)[new]) < 0.25
    assert song.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "a.png"]


def test_after_a_filled_passage_the_original_goes_on(tmp_path: Path) -> None:
    piano_roll(write_song(tmp_path / "a.mid"), tmp_path / "a.png", [(12.0, 13.0), (4.0, 8.0)])
    picture = imread(tmp_path / "a.png")
    for start, end, new in ((0, 4, False), (4, 8, True), (8, 12, False), (12, 13, True), (13, 16, False)):
        part = slice(column(start, 16) + 3, column(end, 16) - 3)
        assert (share(picture, plots.TINT, part) > 0.5) == new
        assert (share(picture, plots.TRACKS[0], part) > 0) == new
        assert (np.median(strip_of(picture)[part]) < 0.25) == new


def test_original_and_new_differ_in_grey(tmp_path: Path) -> None:
    def grey(colour: str) -> float:
        return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))

    assert grey(plots.PALE) - grey(plots.INK) > 0.5  # the strips
    assert 1 - grey(plots.TINT) > 0.05  # the paper
    assert grey(plots.NEW) - grey(plots.ORIGINAL) > 0.2  # lines


def test_without_new_music_there_is_neither_tint_nor_strip(tmp_path: Path) -> None:
    piano_roll(write_song(tmp_path / "a.mid"), tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    for colour in plots.TRACKS[:3]:
        assert share(picture, colour)
    assert not share(picture, plots.TRACKS[3]) and not share(picture, plots.TINT)
    assert np.median(strip_of(picture)) == 1


def test_drums_are_drawn_in_a_lane_beneath(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid", names=(), drums=True)
    piano_roll(song, tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    assert share(picture[400:], plots.TRACKS[0])
    assert not share(picture[:480], plots.TRACKS[0])


def test_every_track_has_its_name_and_every_channel_of_a_shared_one(tmp_path: Path) -> None:
    twins = score.read(write_song(tmp_path / "a.mid", names=("Violin", "Violin", "Horn")))
    assert plots._notes(twins).names == ("Violin", "Violin 2", "Horn", "Kit")
    together = score.read(type_0_song(tmp_path / "b.mid"))
    assert {"Electric Bass (fi…", "Drums"} < set(plots._notes(together).names)


def test_a_narrow_passage_is_named_beside_it(tmp_path: Path) -> None:
    names = []
    for spans in ([(100.0, 102.0)], [(198.0, 200.0)], [(100.0, 130.0)]):
        strip = plots.add_strip(plots.paper(""), plots.LEFT, 0.86, 0.94)
        plots.draw_strip(strip, spans, 200.0)
        names.append([text.get_text() for text in strip.texts])
    assert names == [["original", " ◂ new", "original"], ["original", "new ▸ "], ["original", "new", "original"]]


def test_bar_numbers_do_not_overlap() -> None:
    axes = plots.add_strip(plots.paper(""), plots.LEFT, 0.86, 0.94)
    bars_s = np.concatenate([np.arange(0, 100, 4.0), np.arange(100, 110, 0.5), [300.0]])
    axes.set_xlim(0, 300)
    plots.number_bars(axes, bars_s, 300.0)
    numbers = [int(label.get_text()) for label in axes.get_xticklabels()]
    places_px = bars_s[np.array(numbers) - 1] / 300 * 0.94 * plots.SIZE_PX[0]
    assert numbers[0] == 1 and len(bars_s) not in numbers  # the last border starts no bar
    assert (np.diff(places_px) > 26).all()


def test_spans_are_put_in_order_and_joined() -> None:
    assert plots.clean_spans([(8, 9), (1, 2), (2, 3)]) == [(1, 3), (8, 9)]
    inside = plots.is_new(np.array([0.5, 1.0, 1.9999, 2.5, 3.0, 8.0]), [(1.0, 3.0), (8.0, 9.0)])
    assert inside.tolist() == [False, True, True, True, False, True]
    for wrong in ((3.0, 2.0), (-1.0, 2.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(BadInput, match="span of new music"):
            plots.clean_spans([wrong])


def test_a_long_title_gives_way_to_the_legend() -> None:
    figure = plots.paper("x" * 70)
    plots._draw_legend(figure, [("a name of some length", "red")] * 14)
    title, legend = figure.texts[0], figure.legends[0]
    assert title.get_text().endswith("…") and 10 < len(title.get_text()) < 60
    assert title.get_window_extent().x1 < legend.get_window_extent().x0


def test_same_song_same_picture(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid")
    for name in ("1.png", "2.png"):
        piano_roll(song, tmp_path / name, title="twice")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_louder_notes_are_stronger(tmp_path: Path) -> None:
    notes = plots._notes(score.read(write_song(tmp_path / "a.mid")))
    soft = plots._Notes(**{**vars(notes), "velocity": notes.velocity // 4})
    for spans in ([], [(4.0, 8.0)]):
        assert (plots._colours(soft, spans)[0][:, 3] < plots._colours(notes, spans)[0][:, 3]).all()


def test_pictures_beside_one_another_have_the_same_colours_range_and_end(tmp_path: Path) -> None:
    alone = write_song(tmp_path / "a.mid", names=("Lead", "Bass"), drums=False, beats=8)
    other = mido.MidiFile(write_song(tmp_path / "b.mid", names=("Lead", "Bass", "High"), drums=False, beats=32))
    other.tracks[0][1:] = [m for m in other.tracks[0][1:] if m.type == "end_of_track"]  # only the bass and a third play
    for message in other.tracks[2]:
        if message.type in ("note_on", "note_off"):
            message.note = 110
    other.save(tmp_path / "b.mid")
    first, second = plots._notes(score.read(alone)), plots._notes(score.read(tmp_path / "b.mid"))
    assert first.names == ("Lead", "Bass") and second.names == ("Bass", "High")
    both = plots._as_beside(second, first), plots._as_beside(first, second)
    assert both[0].names == both[1].names == ("Bass", "High", "Lead")
    for drawn, before in zip(both, (first, second), strict=True):
        assert [drawn.names[line] for line in drawn.line] == [before.names[line] for line in before.line]
    piano_roll(alone, tmp_path / "a.png", beside=plots.Beside(tmp_path / "b.mid", 16.0, 2.0))
    picture = imread(tmp_path / "a.png")
    assert share(picture, plots.TRACKS[0]) and share(picture, plots.TRACKS[2])  # the bass first, the lead third
    assert not share(picture[60:], plots.TRACKS[1])  # but in the legend
    assert not share(picture, plots.TRACKS[2], slice(1000, None))  # of 16 s only four have notes
    left, right = (round(edge * plots.SIZE_PX[0]) for edge in (plots.LEFT, plots.RIGHT))
    seam = left + round((right - left) * 2 / 16)
    column = picture[200:600, :, :3].mean(axis=(0, 2))  # of which two have the line
    assert column[seam - 2 : seam + 3].min() < 0.4 and column[seam + 20 : right - 5].min() > 0.9


def test_the_key_to_what_comes_back_stands_only_where_something_could(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid", beats=32)
    for name, kind in (("own.png", ""), ("planned.png", "new")):
        piano_roll(song, tmp_path / name, sections=[(0.0, 8.0, "A", ""), (8.0, 16.0, "B", kind)])
    own, planned = (imread(tmp_path / name)[-22:-2, 900:, :3] for name in ("own.png", "planned.png"))
    assert (own == 1).all() and (planned < 0.8).any()


def test_odd_names_and_many_instruments_are_drawn(tmp_path: Path) -> None:
    names = ("$5 and $x^{", "_hidden", "", "n\u00f6t\u00e9", "x" * 200, *(f"Voice {n}" for n in range(30)))
    song = write_song(tmp_path / "a.mid", names=[name.encode().decode("latin1") for name in names], beats=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        piano_roll(song, tmp_path / "a.png", title="100 $ for \u66f2 $ " + 30 * "$")
    assert imread(tmp_path / "a.png").shape[:2] == (660, 1760)


def test_five_minutes_make_a_small_picture(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid", names=tuple("abcdef"), beats=600)
    borders_s = list(np.arange(10, 300, 10.0))
    piano_roll(song, tmp_path / "a.png", [(60.0, 300.0)], borders_s, "Long", list(np.arange(0, 300, 2.0)))
    assert (tmp_path / "a.png").stat().st_size < 400_000


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    piano_roll(write_song(tmp_path / "a.mid"), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_errors_are_one_sentence_and_leave_nothing(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid")
    (tmp_path / "bad.mid").write_bytes(b"hello")
    for midi, png, says in (
        (song, tmp_path / "a.pdf", r"end it in \.png"),
        (tmp_path / "bad.mid", tmp_path / "a.png", "bad.mid"),
        (tmp_path / "none.mid", tmp_path / "a.png", "none.mid"),
        (song, tmp_path / "no folder" / "a.png", "cannot be written"),
    ):
        with pytest.raises(BadInput, match=says) as caught:
            piano_roll(midi, png)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "bad.mid"]


@pytest.mark.parametrize(("seconds", "says"), [(0, "0:00"), (59.9, "0:59"), (125.2, "2:05"), (3600, "60:00")])
def test_clock(seconds: float, says: str) -> None:
    assert plots.clock(seconds) == says


# ---- the strip of sections -------------------------------------------------------------------------------------------

SECTIONS = [(0.0, 4.0, "A", ""), (4.0, 8.0, "B", ""), (8.0, 12.0, "A", "same"), (12.0, 14.0, "A", "harmony"),
            (14.0, 16.0, "C", "new")]  # fmt: skip


def colours_in_strip(picture: np.ndarray, start_s: float, end_s: float) -> set[tuple[int, ...]]:
    """Colours between two times in the rows in which sections are drawn, without letters and edges."""
    part = picture[74:97, column(start_s, 16) + 4 : column(end_s, 16) - 4, :3]
    found, counts = np.unique(np.round(part * 255).astype(int).reshape(-1, 3), axis=0, return_counts=True)
    return {
        tuple(colour.tolist()) for colour, count in zip(found, counts, strict=True) if count > 0.12 * part[..., 0].size
    }


def test_sections_have_a_colour_each_that_is_fuller_the_more_comes_back(tmp_path: Path) -> None:
    piano_roll(write_song(tmp_path / "a.mid"), tmp_path / "a.png", [(8.0, 16.0)], sections=SECTIONS)
    picture = imread(tmp_path / "a.png")
    first, second, same, bass, new = (colours_in_strip(picture, start, end) for start, end, _, _ in SECTIONS)
    pale = first - {(255, 255, 255)}
    assert len(pale) == 1 and not pale & second and not pale & new and not second & new - {(255, 255, 255)}
    strong = same - {(255, 255, 255)}
    assert len(strong) == 1 and strong != pale
    assert pale <= bass and strong <= bass  # both


def test_without_sections_the_picture_is_as_ever(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid")
    piano_roll(song, tmp_path / "a.png", [(8.0, 16.0)])
    piano_roll(song, tmp_path / "b.png", [(8.0, 16.0)], sections=[])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_letter_stands_once_for_all_phrases_of_a_section_in_a_row() -> None:
    assert runs(SECTIONS) == [(0.0, 4.0, "A"), (4.0, 8.0, "B"), (8.0, 14.0, "A"), (14.0, 16.0, "C")]
    assert runs([(0.0, 4.0, "A", ""), (4.0, 8.0, "A", "same"), (8.0, 9.0, "A", "new"), (10.0, 11.0, "A", "new")]) == [
        (0.0, 4.0, "A"), (4.0, 9.0, "A"), (10.0, 11.0, "A"),
    ]  # fmt: skip


def test_many_short_sections_are_drawn(tmp_path: Path) -> None:
    many = [(i / 8, (i + 1) / 8, chr(65 + i % 26), ("new", "same")[i % 2]) for i in range(128)]
    piano_roll(write_song(tmp_path / "a.mid", drums=False), tmp_path / "a.png", sections=many)
    assert imread(tmp_path / "a.png").shape[:2] == (660, 1760)
