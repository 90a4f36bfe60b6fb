"""Extends songs nobody trained on and checks every promise on the files that come out.

    python benchmarks/continuations.py FOLDER… [--splits splits.csv] [--songs 20] [--seconds 300] [--keep OUT]

Each FOLDER is a source; with --splits only its test songs are used. Songs of 15 s to two thirds of --seconds take part,
the sources in turn. Checked: length within one bar, every original event before the seam equal, no voice that the song
does not have, no chunk silent or stuck, the silence at the seam no longer than the song's longest at a bar line.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from common import report

from midiex import extend as extending
from midiex import ranking, score
from midiex.errors import MidiexError


def songs_of(folders: list[Path], splits: Path | None, most: int, longest_s: float) -> list[tuple[str, score.Song]]:
    """Songs in a fixed shuffled order, one source after another in turn."""
    test = None
    if splits:
        with splits.open(newline="") as file:
            test = {(row["source"], row["file"]) for row in csv.DictReader(file) if row["split"] == "test"}
    queues = []
    for folder in folders:
        files = [p for p in sorted(folder.rglob("*.mid*")) if test is None or (folder.name, p.name) in test]
        queues.append((folder.name, sorted(files, key=lambda p: zlib.crc32(p.name.encode()))))
    found: list[tuple[str, score.Song]] = []
    while len(found) < most and any(queue for _, queue in queues):
        for source, queue in queues:
            while queue and len(found) < most:
                try:
                    song = score.read(queue.pop(0))
                except MidiexError:
                    continue
                if 15 <= song.length_s <= longest_s:
                    found.append((source, song))
                    break
    return found


def silence_at(starts: np.ndarray, ends: np.ndarray, at: float) -> float:
    """Seconds of silence that hold the moment `at`; 0 when a note rings across it or nothing follows."""
    before, after = ends[starts < at - 1e-6], starts[starts >= at - 1e-6]
    if len(before) == 0 or len(after) == 0:
        return 0.0
    return max(0.0, float(after.min() - before.max()))


def note_times(song: score.Song) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, int]]]:
    """Starts and ends in seconds and the (track, channel, program) of every note."""
    starts, ends, voices = [], [], []
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        notes = track.notes.numpy()
        starts.append(song.tempo.to_seconds(notes["time"]))
        ends.append(song.tempo.to_seconds(notes["time"] + notes["duration"]))
        voices += [(voice.track, voice.channel, voice.program)] * len(notes["time"])
    return np.concatenate(starts), np.concatenate(ends), voices


def check(extension: extending.Passage, out: Path, seconds: float) -> dict:
    """The promises, read off the written file."""
    song, result, line = extension.song, score.read(out), extension.line
    starts, ends, voices = note_times(result)
    bar_s = float(line.grid.bar_s[-1])
    mine = {(v.track, v.channel, v.program) for v in song.voices}
    style = extension.style
    silent = stuck = 0
    for chunk in extension.written:
        silent += (
            len(chunk.rows) == 0
            or len(chunk.rows) / (chunk.end_s - chunk.start_s) < ranking.SILENT_SHARE * style.thinnest
        )
        stuck += ranking.is_stuck(chunk.rows, style)
    song_starts, song_ends, _ = note_times(song)
    own = max(silence_at(song_starts, song_ends, t) for t in song.grid.seconds[1 : line.before])
    gap = silence_at(starts, ends, line.start_s)
    return {
        "length": abs(extension.end_s - seconds) <= bar_s
        and seconds - 1.5 * bar_s <= result.length_s <= extension.end_s + 0.05,
        "original": score.events_before(result.midi, line.start_tick)
        == score.events_before(song.midi, line.start_tick),
        "voices": set(voices) <= mine,
        "silent": int(silent),
        "stuck": int(stuck),
        "seam gap s": gap,
        "own gap s": own,
        "seam": gap <= own + 0.02,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--model", default=None)
    parser.add_argument("--keep", type=Path, help="folder for the extended songs and their pictures")
    args = parser.parse_args()
    model = extending.load(args.model)
    keep = args.keep or Path(tempfile.mkdtemp())
    keep.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (source, song) in enumerate(songs_of(args.folders, args.splits, args.songs, args.seconds * 2 / 3)):
        begun = time.perf_counter()
        extension = extending.start(song.path, args.seconds, model=model, seed=1)
        for _ in extension.chunks():
            pass
        wall_s = time.perf_counter() - begun
        out = extension.save(keep / f"{number:02d}_{source}.mid")
        _picture(extension, out)
        found = check(extension, out, args.seconds)
        tries = sum(c.attempts > 1 for c in extension.written)
        rows.append({"source": source, "song": song.path.stem[:28], "prompt s": extension.start_s, "wall s": wall_s}
                    | found | {"chunks": len(extension.written), "resampled": tries,
                               "fallback": sum(c.fallback for c in extension.written)})  # fmt: skip
        print(rows[-1], flush=True)
    report("continuations", rows, seconds=args.seconds, seed=1)
    kept = {name: sum(r[name] for r in rows) for name in ("length", "original", "voices", "seam")}
    print(f"{len(rows)} songs of {len({r['source'] for r in rows})} sources; promises kept: {kept}; "
          f"silent chunks {sum(r['silent'] for r in rows)}, stuck {sum(r['stuck'] for r in rows)}")  # fmt: skip


def _picture(extension: extending.Passage, out: Path) -> None:
    from midiex.plots import piano_roll

    borders = [c.start_s for c in extension.written]
    new_s = [(extension.start_s, extension.end_s)]
    piano_roll(out, out.with_suffix(".png"), new_s, borders, extension.song.path.stem[:60])


if __name__ == "__main__":
    main()
