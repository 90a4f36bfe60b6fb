"""Folders of MIDI to shards of note rows: `midiex prepare`. Parallel over files; a bad file is skipped and reported.

A shard is one safetensors file a source and split, `SHARDS/train/SOURCE.safetensors`, with all its songs' rows one
after another:  `notes` (N, 7) uint8 (a row without its bar), `bar` (N,) uint16, `bar_s` and `bar_units` (bars,) the
length of each bar in seconds and in 1/96 beat, `song_notes` and `song_bars` (songs + 1,) where each song begins.
"""

from __future__ import annotations

import csv
import json
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from . import tokens
from .errors import BadInput
from .smf import MIDI_SUFFIXES, max_file_bytes, unwrapped

MIN_NOTES = 16
MAX_NOTES = 200_000
SPLITS = ("train", "valid", "test")
VALID_SHARE = 0.02  # of files, by a hash of their name, where no split table says otherwise


@dataclass(frozen=True)
class PreparedSong:
    name: str
    notes: np.ndarray  # (n, 7) uint8
    bar: np.ndarray  # (n,) uint16
    bar_s: np.ndarray  # (bars,) float32
    bar_units: np.ndarray  # (bars,) uint16


@dataclass(frozen=True)
class PrepareReport:
    songs: int
    notes: int
    skipped: tuple[tuple[str, str], ...]  # (file, reason)


def prepare_file(path: str) -> PreparedSong | str:
    """A song's rows, or the reason why it gives none."""
    import symusic

    try:
        if (size := os.path.getsize(path)) > (most := max_file_bytes()):
            return f"larger than {most} bytes ({size})"
        score = symusic.Score.from_midi(unwrapped(Path(path).read_bytes()))
        notes = tokens.notes_of(score)
        if len(notes) > MAX_NOTES:
            return f"{len(notes)} notes, more than {MAX_NOTES}"
        grid = tokens.score_grid(score)
        rows = tokens.encode(notes, tokens.voice_ids(score), grid)
    except BadInput as error:
        return str(error)
    except Exception as error:  # whatever a parser makes of a broken file, the other files go on
        return f"unreadable ({type(error).__name__}: {str(error)[:80]})"
    if len(rows) < MIN_NOTES:
        return f"only {len(rows)} notes"
    if len(grid) > np.iinfo(np.uint16).max:
        return f"{len(grid)} bars"
    bar_units = np.round(grid.bar_beats * tokens.MICRO_PER_BEAT).astype(np.uint16)
    return PreparedSong(
        Path(path).name,
        rows[:, 1:].astype(np.uint8),
        rows[:, 0].astype(np.uint16),
        grid.bar_s.astype(np.float32),
        bar_units,
    )


def prepare(
    folders: Iterable[str | Path],
    out: str | Path,
    splits: str | Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PrepareReport:
    """Tokenise every MIDI file under `folders` into shards in `out`. A folder is one source, named as the folder.

    `splits` is a CSV with columns source, file, split (train, valid, test, anything else: left out); without it every
    fiftieth file, by a hash of its name, is for validation. `progress(done, total)` is called now and then.

    Raises BadInput for a folder that does not exist or holds no MIDI, or an `out` that cannot be written.
    """
    jobs_list = [(folder, path) for folder in map(Path, folders) for path in _midi_files(folder)]
    table = _read_splits(splits) if splits else None
    chosen = []
    for folder, path in jobs_list:
        split = _split_of(table, folder.resolve().name, path)
        if split in SPLITS:
            chosen.append((folder.resolve().name, split, path))
    if not chosen:
        raise BadInput(
            "None of the files found belongs to a split to prepare; check the split table's source and file columns."
        )
    groups: dict[tuple[str, str], list[PreparedSong]] = {}
    skipped = []
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        results = pool.map(prepare_file, (str(path) for _, _, path in chosen), chunksize=16)
        for done, ((source, split, path), result) in enumerate(zip(chosen, results, strict=True), 1):
            if isinstance(result, str):
                skipped.append((str(path), result))
            else:
                groups.setdefault((split, source), []).append(result)
            if progress and (done % 50 == 0 or done == len(chosen)):
                progress(done, len(chosen))
    for (split, source), songs in groups.items():
        _write_shard(Path(out) / split / f"{source}.safetensors", songs)
    songs_total = [song for songs in groups.values() for song in songs]
    return PrepareReport(len(songs_total), sum(len(s.notes) for s in songs_total), tuple(skipped))


def _midi_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give folders that hold MIDI files.")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES and p.is_file())
    if not files:
        raise BadInput(f"{folder} holds no MIDI file ({', '.join(MIDI_SUFFIXES)}); give a folder that does.")
    return files


def _read_splits(path: str | Path) -> dict[tuple[str, str], str]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return {(row["source"], row["file"]): row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise BadInput(
            f"The split table {path} cannot be used ({error}); it needs columns source, file and split."
        ) from None


def _split_of(table: dict[tuple[str, str], str] | None, source: str, path: Path) -> str:
    if table is not None:
        return table.get((source, path.name), "")
    return "valid" if zlib.crc32(path.name.encode()) % 1000 < VALID_SHARE * 1000 else "train"


def _write_shard(path: Path, songs: list[PreparedSong]) -> None:
    arrays = {
        "notes": np.concatenate([s.notes for s in songs]),
        "bar": np.concatenate([s.bar for s in songs]),
        "bar_s": np.concatenate([s.bar_s for s in songs]),
        "bar_units": np.concatenate([s.bar_units for s in songs]),
        "song_notes": np.cumsum([0] + [len(s.notes) for s in songs]).astype(np.int64),
        "song_bars": np.cumsum([0] + [len(s.bar_s) for s in songs]).astype(np.int64),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(save(arrays, {"names": json.dumps([s.name for s in songs])}))
        part.replace(path)
    except OSError as error:
        raise BadInput(
            f"The shard {path} cannot be written ({error.strerror}); choose a folder you may write to."
        ) from None
