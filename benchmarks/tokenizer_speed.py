"""Files a second of the note-row tokenizer beside MidiTok's Octuple and REMI, one process, one core.

    python benchmarks/tokenizer_speed.py FOLDER_OF_MIDI [--files 100]

Encoding includes reading the file; decoding starts from token ids and ends with a score. The three take turns file by
file, so that a neighbour on the machine harms all alike.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import miditok
import symusic
from common import report

from midiex.tokenizer import NoteRowTokenizer


def measure(files: Sequence[Path]) -> tuple[list[dict], int]:
    """A row a tokenizer, and how many notes the files have."""
    config = {"use_programs": True, "one_token_stream_for_programs": True, "beat_res": {(0, 4): 12, (4, 12): 4}}
    octuple = miditok.Octuple(miditok.TokenizerConfig(**config, max_bar_embedding=2000))
    tokenizers = {
        "midiex note rows": NoteRowTokenizer(),
        "MidiTok Octuple": octuple,
        "MidiTok REMI": miditok.REMI(miditok.TokenizerConfig(**config)),
    }
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    steps: dict[str, int] = defaultdict(int)
    notes = 0
    for path in files:
        notes += symusic.Score(path).note_num()
        for name, tokenizer in tokenizers.items():
            begun = time.perf_counter()
            tokens = tokenizer.encode(symusic.Score(path))
            encoded = time.perf_counter()
            tokenizer.decode(tokens)
            seconds[name][0] += encoded - begun
            seconds[name][1] += time.perf_counter() - encoded
            steps[name] += len(tokens.ids)
    return [
        {
            "tokenizer": name, "encode files/s": len(files) / seconds[name][0],
            "decode files/s": len(files) / seconds[name][1], "steps a note": steps[name] / notes,
        }
        for name in tokenizers
    ], notes  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=100)
    args = parser.parse_args()
    files = sorted(args.folder.rglob("*.mid"))[: args.files]
    rows, notes = measure(files)
    report("tokenizer_speed", rows, files=len(files), notes=notes)


if __name__ == "__main__":
    main()
