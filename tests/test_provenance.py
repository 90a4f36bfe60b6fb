"""What midiex notes about what it wrote: read back as written, and never mistaken for something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st
from songs import riff, tempo, write_midi

from midiex import provenance, score
from midiex.form_plan import KINDS, SongPhrase
from midiex.provenance import PREFIX, Formed, Provenance, runs_of

NOTE = Provenance(1920, 7, "0123456789ab", "0.2.0", "ending", (1, 2), ((0, 4, 7), (7680, 4, 7), (15360, 3, 9)))
BAR = 4 * 480


def song_with(path: Path, *texts: tuple[int, str], bars: int = 16) -> score.Song:
    events = [(tick, mido.MetaMessage("text", text=text)) for tick, text in texts]
    return score.read(write_midi(path, [[tempo(0, 120), *events], riff(bars)]))


def test_a_note_is_read_as_it_was_written() -> None:
    assert provenance.read(NOTE.text, 1920) == NOTE
    assert provenance.read(NOTE.text, 99) == replace(NOTE, tick=99)
    assert NOTE.text.isascii() and "\n" not in NOTE.text


@given(
    seed=st.integers(0, 2**63),
    tracks=st.lists(st.integers(0, 99)).map(tuple),
    chunks=st.lists(st.tuples(st.integers(0, 2**31), st.integers(1, 16), st.integers(0, 2**63))).map(tuple),
)
def test_every_note_comes_back(seed: int, tracks: tuple[int, ...], chunks: tuple[tuple[int, int, int], ...]) -> None:
    note = replace(NOTE, seed=seed, tracks=tracks, chunks=chunks)
    assert provenance.read(note.text, note.tick) == note


def test_one_chunk_gets_another_seed() -> None:
    changed = NOTE.with_seed(1, 42)
    assert changed.chunks == ((0, 4, 7), (7680, 4, 42), (15360, 3, 9))
    assert replace(changed, chunks=NOTE.chunks) == NOTE


TOLD = json.loads(NOTE.text[len(PREFIX) :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "la la la",
        "midiex",
        PREFIX,
        PREFIX + "{",
        PREFIX + "3",
        PREFIX + "[]",
        PREFIX + "null",
        " " + NOTE.text,
        NOTE.text[:-20],
        *[PREFIX + json.dumps({k: v for k, v in TOLD.items() if k != key}) for key in TOLD],
        *[
            PREFIX + json.dumps(TOLD | {"chunks": chunks})
            for chunks in (3, [3], [[0, 4]], [[0, "four", 7]], [[-1, 4, 7]], [[0, 0, 7]], [[0, None, 7]])
        ],
    ],
)
def test_what_is_no_note_is_none(text: str) -> None:
    assert provenance.read(text, 0) is None


def test_notes_are_found_in_order_among_other_texts(tmp_path: Path) -> None:
    later = replace(NOTE, tick=8 * BAR, chunks=((0, 2, 5),))
    song = song_with(tmp_path / "a.mid", (0, "by hand"), (NOTE.tick, NOTE.text), (later.tick, later.text), (1, PREFIX))
    assert provenance.notes_in(song) == [NOTE, later]
    assert provenance.notes_in(song_with(tmp_path / "b.mid")) == []
    assert provenance.spans_s(song_with(tmp_path / "c.mid")) == []


def test_spans_are_joined_and_lie_inside_the_song(tmp_path: Path) -> None:
    one = replace(NOTE, tick=2 * BAR, chunks=((0, 2, 1), (2 * BAR, 1, 1)))
    two = replace(NOTE, tick=9 * BAR, chunks=((0, 3, 1), (BAR, 1, 1), (4 * BAR, 16, 1)))
    song = song_with(tmp_path / "a.mid", (one.tick, one.text), (two.tick, two.text))
    assert provenance.spans_s(song) == [(4.0, 10.0), (18.0, 24.0), (26.0, 32.0)]


# ---- what later edits leave of it ------------------------------------------------------------------------------------

CHUNKS = ((0, 2, 1), (2 * BAR, 3, 2), (5 * BAR, 2, 3))  # from bar 4 on, so bars 4-5, 6-8 and 9-10


@pytest.mark.parametrize(
    ("start", "resume", "kept"),
    [
        (12, 12, CHUNKS),  # all before
        (11, None, CHUNKS),
        (9, None, CHUNKS[:2]),  # the last one cut off
        (8, None, CHUNKS[:1]),  # the second cut in two
        (9, 9, (*CHUNKS[:2], (9 * BAR, 2, 3))),  # four bars of room before the last one
        (8, 8, (CHUNKS[0], (9 * BAR, 2, 3))),  # in the middle of the second
        (4, 4, CHUNKS),  # before all of it, note included
        (2, 2, CHUNKS),
    ],
)
def test_chunks_move_with_their_music(
    start: int, resume: int | None, kept: tuple[tuple[int, int, int], ...], tmp_path: Path
) -> None:
    note = replace(NOTE, tick=4 * BAR, chunks=CHUNKS)
    song = song_with(tmp_path / "a.mid", (note.tick, note.text))
    texts = provenance.carried(song, start * BAR, None if resume is None else resume * BAR, 4 * BAR)
    assert texts == {note.text: replace(note, chunks=kept).text}


def test_a_song_without_notes_carries_none(tmp_path: Path) -> None:
    assert provenance.carried(song_with(tmp_path / "a.mid", (0, "by hand")), BAR, BAR, BAR) == {}


# ---- the form --------------------------------------------------------------------------------------------------------

FORM = (Formed("A", "same", 17), Formed("B", "new"), Formed("A", "new lead", 8))
PLANNED = replace(NOTE, form=FORM, song=(("A", 8), ("B", 4)))


def test_the_form_is_read_as_it_was_written() -> None:
    assert provenance.read(PLANNED.text, NOTE.tick) == PLANNED
    assert len(PLANNED.text) - len(NOTE.text) < 80
    assert "form" not in NOTE.text  # what had no plan reads as before there were plans


@given(st.text("ABZ29 vsl", min_size=1, max_size=12), st.sampled_from(KINDS), st.integers(0, 9999))
def test_whatever_a_section_is_called_it_is_read_again(section: str, kind: str, back: int) -> None:
    formed = Formed(section, kind, back)
    assert Formed.read(formed.text) == formed


@pytest.mark.parametrize("form", [["As17"], ["As17", "Bn", "?"], ["", "Bn", "Bn"], 3, [None, None, None]])
def test_a_form_that_does_not_fit_its_chunks_is_no_note_of_midiex(form: object) -> None:
    assert provenance.read(PREFIX + json.dumps(TOLD | {"form": form}), 0) is None


def test_another_seed_may_make_another_kind() -> None:
    changed = PLANNED.with_seed(0, 42, "varied")
    assert changed.form == (Formed("A", "varied", 17), *FORM[1:]) and changed.chunks[0] == (0, 4, 42)
    assert PLANNED.with_seed(0, 42).form == FORM


def test_phrases_of_one_section_in_a_row_are_one() -> None:
    phrases = [SongPhrase(0, 4, "A"), SongPhrase(4, 4, "A"), SongPhrase(8, 4, "B"), SongPhrase(12, 2, "A")]
    assert runs_of(phrases) == (("A", 8), ("B", 4), ("A", 2))
    assert runs_of([]) == ()


def test_sections_are_told_in_seconds(tmp_path: Path) -> None:
    note = replace(PLANNED, tick=4 * BAR, song=(("A", 3), ("B", 1)))
    song = song_with(tmp_path / "song.mid", (4 * BAR, note.text))
    assert provenance.sections_s(song) == [
        (0, 6, "A", ""), (6, 8, "B", ""),
        (8, 16, "A", "same"), (16, 24, "B", "new"), (24, 30, "A", "new lead"),
    ]  # fmt: skip
    assert provenance.sections_s(song_with(tmp_path / "old.mid", (4 * BAR, NOTE.text))) == []


def test_forms_stay_with_their_chunks_where_the_song_changes(tmp_path: Path) -> None:
    note = replace(PLANNED, tick=4 * BAR, song=(("A", 3), ("B", 1)))
    song = song_with(tmp_path / "song.mid", (4 * BAR, note.text))
    (cut,) = provenance.carried(song, 9 * BAR, None, 0).values()  # the second chunk and what follows are gone
    told = provenance.read(cut, 4 * BAR)
    assert told is not None and told.form == FORM[:1] and len(told.chunks) == 1 and told.song == note.song
    (moved,) = provenance.carried(song, 2 * BAR, 2 * BAR, 4 * BAR).values()  # something stands before it all
    told = provenance.read(moved, 8 * BAR)
    assert told is not None and told.form == FORM and told.song == ()
