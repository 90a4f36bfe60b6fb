"""The note rows of tokens.py behind MidiTok's interface: config, vocabulary, save and load, encode and decode.

MidiTok's event-by-event passes are replaced by the array operations of tokens.py; a token id is a row's value plus
one, since id 0 of every field is padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import symusic
from miditok import MusicTokenizer, TokenizerConfig, TokSequence

from . import tokens
from .errors import BadInput
from .grid import POSITIONS_PER_BEAT, BarGrid

MAX_SCORE_BARS = 8192  # of a whole score; a chunk's bars start anew and use the first tokens.MAX_CHUNK_BARS only
TICKS_PER_BEAT = tokens.MICRO_PER_BEAT  # of a decoded score: every time a row can say falls on a tick
SPECIALS = ("PAD",)


class NoteRowTokenizer(MusicTokenizer):
    """Compound tokens, one row a note, eight fields a row (see tokens.py)."""

    def __init__(self, tokenizer_config: TokenizerConfig | None = None, params: str | Path | None = None) -> None:
        if tokenizer_config is None and params is None:
            tokenizer_config = TokenizerConfig(
                special_tokens=list(SPECIALS),
                beat_res={(0, 32): POSITIONS_PER_BEAT},
                num_velocities=tokens.FIELD_SIZES[tokens.VELOCITY],
                use_programs=True,
                one_token_stream_for_programs=True,
                max_score_bars=MAX_SCORE_BARS,
            )
        super().__init__(tokenizer_config, params)

    def encode(self, score: symusic.Score | Path, *_args: Any, **_options: Any) -> TokSequence:
        """A score or MIDI file as one sequence of rows of ids, eight a note.

        Raises BadInput when the score is longer than the vocabulary has bars.
        """
        if not isinstance(score, symusic.core.ScoreTick):
            score = symusic.Score(score)
        return self._score_to_tokens(score)

    def decode(self, tokens_: Any, programs: Any = None, output_path: str | Path | None = None) -> symusic.Score:
        """Rows of ids as a score at 120 bpm, 96 ticks a beat, in 4/4 or the least longer meter all positions fit into;
        rows do not say meter or tempo.

        `decode_rows` lays rows on the bars of an existing score instead.
        """
        score = self._tokens_to_score(tokens_, programs)
        if output_path is not None:
            score.dump_midi(output_path)
        return score

    def encode_rows(self, score: symusic.Score) -> np.ndarray:
        """All notes as rows (n, 8), bars counted from the score's beginning."""
        grid = tokens.score_grid(score, spare_ticks=score.tpq // 12)  # a last note may round into the bar after
        return tokens.encode(tokens.notes_of(score), tokens.voice_ids(score), grid)

    def decode_rows(self, rows: np.ndarray, grid: BarGrid) -> symusic.Score:
        """A score with one track a voice; its notes' rows are `rows` again."""
        found = np.unique(rows[:, [tokens.PROGRAM, tokens.INSTANCE]], axis=0)
        most = {int(program): int(instance) for program, instance in found}  # sorted: the last instance stays
        voices = np.array([(p, i) for p, last in most.items() for i in range(last + 1)], np.int64).reshape(-1, 2)
        notes = tokens.decode(rows, voices, grid)
        score = symusic.Score(int(grid.tpq))
        for index, (program, _instance) in enumerate(voices.tolist()):
            is_drum = program == tokens.DRUM_PROGRAM
            track = symusic.Track(program=0 if is_drum else program, is_drum=is_drum)
            mine = notes.track == index
            columns = (notes.start_ticks, notes.duration_ticks, notes.pitch, notes.velocity)
            track.notes = symusic.Note.from_numpy(
                *(c[mine].astype(t) for c, t in zip(columns, _NOTE_TYPES, strict=True))
            )
            score.tracks.append(track)
        return score

    def _score_to_tokens(self, score: symusic.Score, *_args: Any, **_options: Any) -> TokSequence:
        rows = self.encode_rows(score)
        limit = self.config.additional_params["max_score_bars"]
        if len(rows) and rows[-1, tokens.BAR] >= limit:
            raise BadInput(
                f"The score has {rows[-1, tokens.BAR] + 1} bars, more than the {limit} the tokenizer knows; cut it up."
            )
        return TokSequence(ids=(rows + len(SPECIALS)).tolist())

    def _tokens_to_score(self, tokens_: Any, programs: Any = None) -> symusic.Score:
        ids = tokens_.ids if isinstance(tokens_, TokSequence) else tokens_
        rows = np.asarray(ids, np.int64).reshape(-1, len(tokens.FIELDS)) - len(SPECIALS)
        rows = rows[(rows >= 0).all(1)]  # padding goes
        bars = int(rows[:, tokens.BAR].max()) + 2 if len(rows) else 1
        beats = max(4, int(rows[:, tokens.POSITION].max(initial=0)) // POSITIONS_PER_BEAT + 1)
        ticks = np.arange(bars + 1) * beats * TICKS_PER_BEAT
        score = self.decode_rows(rows, BarGrid(TICKS_PER_BEAT, ticks, ticks / TICKS_PER_BEAT / 2))
        score.tempos.append(symusic.Tempo(0, 120))
        score.time_signatures.append(symusic.TimeSignature(0, beats, 4))
        return score

    def _create_base_vocabulary(self) -> list[list[str]]:
        sizes = (self.config.additional_params["max_score_bars"], *tokens.FIELD_SIZES[1:])
        return [[f"{name.title()}_{i}" for i in range(n)] for name, n in zip(tokens.FIELDS, sizes, strict=True)]

    def _create_token_types_graph(self) -> dict[str, set[str]]:
        names = [name.title() for name in tokens.FIELDS]
        return {name: {following} for name, following in zip(names, [*names[1:], names[0]], strict=True)}

    def _add_time_events(self, events: list, time_division: int) -> list:
        raise NotImplementedError("Rows are made by array operations, not from events.")


_NOTE_TYPES = (np.int32, np.int32, np.int8, np.int8)
