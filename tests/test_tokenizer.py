"""The rows behind MidiTok's interface: a real MusicTokenizer whose encode and decode lose nothing on the grid."""

from __future__ import annotations

from pathlib import Path

import miditok
import pytest
import symusic
from helpers import BAND, DRUMS, score_of, write_song
from hypothesis import given, settings
from hypothesis import strategies as st

from midiex import tokens
from midiex.errors import BadInput
from midiex.tokenizer import MAX_SCORE_BARS, NoteRowTokenizer

TPQ = 480
TOKENIZER = NoteRowTokenizer()


def recoded(score: symusic.core.ScoreTick) -> tuple[list, list]:
    """Ids of a score, and of what its ids decode to."""
    ids = TOKENIZER.encode(score).ids
    return ids, TOKENIZER.encode(TOKENIZER.decode(ids)).ids


def test_it_is_a_miditok_tokenizer() -> None:
    assert isinstance(TOKENIZER, miditok.MusicTokenizer)
    assert TOKENIZER.is_multi_voc and TOKENIZER.one_token_stream and TOKENIZER.pad_token_id == 0
    assert miditok.MusicTokenizer.__call__(TOKENIZER, score_of([(0, [(0, TPQ, 60, 82)])])).ids == [
        [1, 1, 5, 1, 1, 61, tokens.DURATIONS.tolist().index(24) + 1, 21]
    ]


def test_vocabulary_sizes_are_the_fields_and_padding() -> None:
    assert [len(vocabulary) for vocabulary in TOKENIZER.vocab] == [
        MAX_SCORE_BARS + 1,
        *(size + 1 for size in tokens.FIELD_SIZES[1:]),
    ]
    for name, vocabulary in zip(tokens.FIELDS, TOKENIZER.vocab, strict=True):
        assert vocabulary["PAD_None"] == 0
        assert vocabulary[f"{name.title()}_3"] == 4  # an id is a row's value plus one


def test_save_and_load_give_an_equal_tokenizer(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = NoteRowTokenizer(params=tmp_path / "tokenizer.json")
    assert loaded == TOKENIZER and loaded.config == TOKENIZER.config and loaded.vocab == TOKENIZER.vocab
    song = write_song(tmp_path / "a.mid")
    assert loaded.encode(song).ids == TOKENIZER.encode(song).ids


def test_a_path_a_string_and_a_score_encode_alike(tmp_path: Path) -> None:
    path = write_song(tmp_path / "a.mid")
    ids = TOKENIZER.encode(path).ids
    assert ids == TOKENIZER.encode(str(path)).ids == TOKENIZER.encode(symusic.Score(path)).ids  # type: ignore[arg-type]
    assert len(ids) == symusic.Score(path).note_num()


def test_a_song_comes_back_exactly(tmp_path: Path) -> None:
    ids, again = recoded(symusic.Score(write_song(tmp_path / "a.mid", programs=(*BAND, 0, 0, 40))))
    assert ids == again


grid_notes = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 100), st.integers(0, 127), st.integers(1, 127)), min_size=1
)


@given(voices=st.lists(st.tuples(st.sampled_from([0, 0, 24, DRUMS]), grid_notes), max_size=5), waltz=st.booleans())
@settings(max_examples=50)
def test_encode_decode_encode_is_exact(voices: list, waltz: bool) -> None:
    on_grid = [(program, [(s * 40, d * 20, p, v) for s, d, p, v in notes]) for program, notes in voices]
    ids, again = recoded(score_of(on_grid, TPQ, ((0, 3 if waltz else 4, 4),)))
    assert ids == again


@pytest.mark.parametrize("meter", [(0, 5, 4), (0, 7, 4), (0, 12, 4)])
def test_encode_decode_encode_is_exact_in_long_bars(meter: tuple[int, int, int]) -> None:
    ids, again = recoded(score_of([(0, [(i * TPQ, TPQ, 60, 82) for i in range(40)])], TPQ, (meter,)))
    assert ids == again


def test_encode_decode_encode_is_exact_beside_an_empty_track() -> None:
    ids, again = recoded(score_of([(0, [(0, TPQ, 60, 82)]), (0, []), (0, [(0, TPQ, 64, 82)])]))
    assert ids == again


def test_encode_decode_encode_is_exact_for_a_note_that_ends_on_the_last_bar_line() -> None:
    ids, again = recoded(score_of([(0, [(4 * TPQ - 20, 25, 60, 82)])]))
    assert ids == again


def test_padding_is_left_out(tmp_path: Path) -> None:
    ids = TOKENIZER.encode(write_song(tmp_path / "a.mid")).ids
    padded = [*ids[:7], [0] * 8, *ids[7:], [0] * 8]
    assert TOKENIZER.encode(TOKENIZER.decode(padded)).ids == ids
    assert TOKENIZER.decode([]).note_num() == 0


def test_decode_writes_a_file(tmp_path: Path) -> None:
    ids = TOKENIZER.encode(write_song(tmp_path / "a.mid"))
    TOKENIZER.decode(ids, output_path=tmp_path / "b.mid")
    assert TOKENIZER.encode(tmp_path / "b.mid").ids == ids.ids


def test_rows_keep_to_the_bars_of_a_given_grid(tmp_path: Path) -> None:
    score = symusic.Score(write_song(tmp_path / "a.mid", bpm=90))
    score.time_signatures = [symusic.TimeSignature(0, 5, 4)]
    rows = TOKENIZER.encode_rows(score)
    back = TOKENIZER.decode_rows(rows, tokens.score_grid(score))
    assert sorted(n.time for t in back.tracks for n in t.notes) == sorted(n.time for t in score.tracks for n in t.notes)
    assert [(t.program, t.is_drum) for t in back.tracks] == [(0, False), (32, False), (0, True)]


def test_a_score_longer_than_the_vocabulary_is_refused() -> None:
    at_limit = [(0, TPQ, 60, 82), ((MAX_SCORE_BARS - 1) * 4 * TPQ, TPQ, 60, 82)]
    assert TOKENIZER.encode(score_of([(0, at_limit)])).ids[-1][0] == MAX_SCORE_BARS
    with pytest.raises(BadInput, match="8193 bars"):
        TOKENIZER.encode(score_of([(0, [*at_limit, (MAX_SCORE_BARS * 4 * TPQ, TPQ, 60, 82)])]))


def test_the_grammar_goes_round_the_fields() -> None:
    names = [name.title() for name in tokens.FIELDS]
    at = names[0]
    for name in [*names[1:], names[0]]:
        assert TOKENIZER.tokens_types_graph[at] - {"PAD"} == {name}
        at = name
