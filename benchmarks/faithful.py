"""Is the song still the song? Seams, exact ends, holes and insertions on songs nobody trained on.

    python benchmarks/faithful.py FOLDER… [--splits splits.csv] [--songs 40] [--new 40] [--keep OUT]

Each FOLDER is a source; with --splits only its test songs are used, sources in turn. Every song is continued by about
--new seconds, freely and with --exact; half of them are also filled and inserted into. All is read off the written
files, with code of its own: events against the original's, notes at the seam, the last release. The seam is compared
with plain looping (the eight bars before it copied behind it) and with the song's own bar lines. `midicsv`, where
installed, and pretty_midi must read every result without a word and find the same tracks and instruments.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
import warnings
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
from common import report
from continuations import silence_at, songs_of

from midiex import edit, score, tokens
from midiex import extend as extending

LOOP_BARS = 8
ROUGH = (1, 6, 11)  # intervals, in semitones modulo the octave
NEAR_S = 0.05


# ---- notes -----------------------------------------------------------------------------------------------------------


class Notes:
    """Notes of a song in seconds, the pedal's hold included."""

    def __init__(self, song: score.Song):
        heard = tokens.notes_of(song.score)
        self.start_s = song.tempo.to_seconds(heard.start_ticks)
        self.end_s = song.tempo.to_seconds(heard.start_ticks + heard.duration_ticks)
        self.start_tick, self.end_tick = heard.start_ticks, heard.start_ticks + heard.duration_ticks
        self.pitch, self.velocity = heard.pitch, heard.velocity
        self.drum = np.array([v.is_drum for v in song.voices])[heard.track]
        self.lane = np.array([v.channel for v in song.voices])[heard.track] * 128 + heard.pitch

    def looped(self, seam_s: float, from_s: float) -> Notes:
        """As a DAW would loop it: the notes from `from_s` to the seam once more behind it, nothing else after it."""
        other = object.__new__(Notes)
        mine = (self.start_s >= from_s - 1e-6) & (self.start_s < seam_s - 1e-6)
        kept = self.start_s < seam_s - 1e-6
        for name, value in vars(self).items():
            moved = value[mine] + (seam_s - from_s) if name in ("start_s", "end_s") else value[mine]
            setattr(other, name, np.concatenate([value[kept], moved]))
        return other


def bar_figures(notes: Notes, first_s: float, last_s: float) -> np.ndarray:
    """Onsets a second, mean velocity and mean pitch (tuned notes) of what begins between two moments, (3,)."""
    mine = (notes.start_s >= first_s - 1e-6) & (notes.start_s < last_s - 1e-6)
    tuned = mine & ~notes.drum
    onsets = len(np.unique(np.round(notes.start_s[mine], 3)))
    return np.array([
        onsets / (last_s - first_s),
        notes.velocity[mine].mean() if mine.any() else np.nan,
        notes.pitch[tuned].mean() if tuned.any() else np.nan,
    ])  # fmt: skip


def roughness(notes: Notes, at_s: float, beat_s: float) -> float:
    """Share of rough intervals between notes that ring across a moment and notes that begin in the beat after it, both
    sounding; NaN without such pairs."""
    tuned = ~notes.drum
    ringing = tuned & (notes.start_s < at_s - 1e-6) & (notes.end_s > at_s + 0.02)
    new = tuned & (notes.start_s >= at_s - 1e-6) & (notes.start_s < at_s + beat_s)
    together = notes.end_s[ringing][:, None] > notes.start_s[new][None] + 0.02
    if not together.any():
        return float("nan")
    interval = np.abs(notes.pitch[ringing][:, None] - notes.pitch[new][None]) % 12
    return float(np.isin(interval, ROUGH)[together].mean())


def seam_figures(notes: Notes, borders_s: np.ndarray, before: int, own: Notes) -> dict[str, float]:
    """Silence at the seam and jumps across it, beside the song's own bar lines."""
    seam_s, after_s = borders_s[before], borders_s[before + 1]
    lines = borders_s[1:before]
    own_gaps = [silence_at(own.start_s, own.end_s, t) for t in lines]
    figures = np.array(
        [bar_figures(own, a, b) for a, b in zip(borders_s[:before], borders_s[1 : before + 1], strict=True)]
    )
    steps = [column[~np.isnan(column)] for column in np.diff(figures, axis=0).T]
    spread = np.array([column.std() if len(column) else 0.0 for column in steps])
    floor = np.array([0.5, 2.0, 1.0])  # less than this nobody hears
    jump = np.abs(bar_figures(notes, seam_s, after_s) - figures[-1]) / np.maximum(spread, floor)
    beat_s = float(np.median(np.diff(borders_s[: before + 1]))) / 4
    own_rough = [share for t in lines if not np.isnan(share := roughness(own, t, beat_s))]
    return {
        "gap s": silence_at(notes.start_s, notes.end_s, seam_s),
        "own gap s (95 %)": float(np.percentile(own_gaps, 95)) if own_gaps else 0.0,
        "density jump": float(jump[0]),
        "level jump": float(jump[1]),
        "register jump": float(jump[2]),
        "rough": roughness(notes, seam_s, beat_s),
        "own rough": float(np.mean(own_rough)) if own_rough else float("nan"),
    }


def truncated(original: score.Song, result: score.Song, until_tick: int) -> int:
    """Notes struck before the seam that sound shorter in the result, not counting those whose key is struck anew."""
    was, now = Notes(original), Notes(result)
    ends = defaultdict(list)
    for lane, start, end in zip(now.lane, now.start_tick, now.end_tick, strict=True):
        ends[lane, start].append(end)
    strikes = defaultdict(set)
    for lane, start in zip(now.lane, now.start_tick, strict=True):
        strikes[lane].add(start)
    short = 0
    for lane, start, end in zip(was.lane, was.start_tick, was.end_tick, strict=True):
        if start < until_tick and ends[lane, start]:
            latest = max(ends[lane, start])
            short += int(latest < end and latest not in strikes[lane])
    return short


# ---- events ----------------------------------------------------------------------------------------------------------


def timed(track: Any) -> list[tuple[int, tuple[int, ...], int | None]]:
    """(tick, bytes, tick of the strike that a note event belongs to) of a track's events, end_of_track aside."""
    tick, found = 0, []
    open_notes: defaultdict[tuple[int, int], deque[int]] = defaultdict(deque)
    for message in track:
        tick += message.time
        if message.type == "end_of_track":
            continue
        strike = None
        if message.type == "note_on" and message.velocity:
            open_notes[message.channel, message.note].append(tick)
            strike = tick
        elif message.type in ("note_on", "note_off"):
            queue = open_notes[message.channel, message.note]
            strike = queue.popleft() if queue else tick
        found.append((tick, tuple(message.bytes()), strike))
    return found


def outside_equal(
    original: Any, result: Any, first: int, after: int, shift: int, rewritten: set[int] | None = None
) -> bool:
    """Are all events outside the new music (result ticks `first` to `after` + `shift`) those of the original, which
    goes on from its tick `after`? Releases stay with their notes; at the very border midiex may set channels right.
    Tracks that are not among the `rewritten` (None: all are) must be equal throughout."""
    end = after + shift
    for number, (old, new) in enumerate(zip(original.tracks, result.tracks, strict=True)):
        events = timed(old)
        if rewritten is not None and number not in rewritten:
            kept = [(t, b) for t, b, _ in timed(new) if b"midiex:" not in bytes(b)]
            if kept != [(t, b) for t, b, _ in events]:
                return False
            continue
        before = [(t, b) for t, b, _ in events if t < first]
        if [(t, b) for t, b, _ in timed(new) if t < first] != before:
            return False
        behind = [(t + shift, b) for t, b, strike in events
                  if t >= after and not (strike is not None and strike < after and t > strike)]  # fmt: skip
        ringing = {(t, b) for t, b, strike in events if strike is not None and strike < first <= t}
        later = [(t, b) for t, b, _ in timed(new) if t > end]
        if [e for e in later if e not in ringing or e in behind] != [e for e in behind if e[0] > end]:
            return False
        at_end = [b for t, b, _ in timed(new) if t == end]
        wanted = [b for t, b in behind if t == end]
        if len(wanted) and at_end[-len(wanted) :] != wanted:
            return False
    return True


def parses(path: Path, original: Path) -> str:
    """What midicsv (if there) and pretty_midi complain of in the result, tracks and instruments other than the
    original's included; empty when they are content."""
    if shutil.which("midicsv"):
        said = [subprocess.run(["midicsv", str(p)], capture_output=True, check=False) for p in (path, original)]
        if said[0].returncode or said[0].stderr:
            return f"midicsv: {said[0].stderr.decode(errors='replace')[:80]}"
        tracks = [out.stdout.count(b", Start_track") for out in said]
        if tracks[0] != tracks[1]:
            return f"midicsv: {tracks[0]} tracks, {tracks[1]} in the original"
    heard = []
    for p in (path, original):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                view = pretty_midi.PrettyMIDI(str(p))
            except Exception as error:  # a parser nobody here wrote may fail in any way
                return f"pretty_midi: {error}" if p == path else ""
        heard.append(({(i.program, i.is_drum, i.name) for i in view.instruments}, {str(w.message) for w in caught}))
    if heard[0][1] - heard[1][1]:
        return f"pretty_midi warns: {min(heard[0][1])[:80]}"
    return "" if heard[0][0] <= heard[1][0] else "pretty_midi: other instruments"


# ---- the runs --------------------------------------------------------------------------------------------------------


def continued(song: score.Song, new_s: float, model: Any, out: Path) -> dict[str, Any]:
    """A song continued freely and exactly."""
    seconds = float(np.floor(song.length_s + new_s))
    passage = extending.start(song.path, seconds, model=model, seed=1)
    for _ in passage.chunks():
        pass
    result = score.read(passage.save(out))
    line = passage.line
    own = Notes(song)
    borders_s = line.grid.seconds
    ours = seam_figures(Notes(result), borders_s, line.before, own)
    from_s = float(borders_s[max(0, line.before - LOOP_BARS)])
    loop = seam_figures(own.looped(line.start_s, from_s), borders_s, line.before, own)
    bar_s = float(line.grid.bar_s[line.before :].max())
    exact = extending.start(song.path, seconds, exact=True, model=model, seed=1)
    for _ in exact.chunks():
        pass
    exactly = score.read(exact.save(out.with_stem(out.stem + "_exact")))
    return (
        {
            "from bar": line.before + 1,
            "of": len(song.grid),
            "events equal": score.events_before(result.midi, line.start_tick)
            == score.events_before(song.midi, line.start_tick)
            and score.events_before(exactly.midi, line.start_tick) == score.events_before(song.midi, line.start_tick),
            "truncated": truncated(song, result, line.start_tick),
            "short by s": seconds - result.length_s,
            "within a bar": -1e-3 <= seconds - line.end_s <= bar_s,
            "last release within a bar": seconds - result.length_s <= bar_s,
            "exact ms": 1000 * (exactly.length_s - seconds),
            "parses": parses(out, song.path) or parses(out.with_stem(out.stem + "_exact"), song.path),
        }
        | ours
        | {f"loop {name}": value for name, value in loop.items() if not name.startswith("own")}
    )


def edited(song: score.Song, model: Any, out: Path) -> dict[str, Any]:
    """A song filled (for all tracks, then for one) and inserted into, about the middle of it."""
    bars = len(song.grid)
    first, after = bars // 2, min(bars // 2 + max(1, bars // 8), bars - 1)
    places = (f"bar:{first + 1}", f"bar:{after + 1}")
    ticks = [int(song.grid.ticks[bar]) for bar in (first, after)]
    found: dict[str, Any] = {"bars": f"{first + 1}-{after} of {bars}"}
    busiest = int(np.argmax([len(track.notes) for track in song.score.tracks]))
    for name, tracks in (("fill", []), ("fill one", [str(song.voices[busiest].track)])):
        path = out.with_stem(f"{out.stem}_{name.replace(' ', '_')}")
        edit.fill(song.path, *places, path, tracks=tracks, model=model, seed=1)
        result = score.read(path)
        rewritten = {song.voices[busiest].track} if tracks else None
        found[name] = outside_equal(song.midi, result.midi, *ticks, 0, rewritten) and not parses(path, song.path)
    path = out.with_stem(f"{out.stem}_insert")
    passage = edit.insert(song.path, places[0], 20, path, model=model, seed=1)
    result = score.read(path)
    found["insert"] = outside_equal(song.midi, result.midi, ticks[0], ticks[0], passage.joint.shift_ticks)
    found["insert"] &= not parses(path, song.path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--new", type=float, default=40, help="seconds of new music")
    parser.add_argument("--longest", type=float, default=240, help="songs longer than this do not take part")
    parser.add_argument("--model", default=None)
    parser.add_argument("--keep", type=Path, help="folder for the results")
    args = parser.parse_args()
    model = extending.load(args.model)
    keep = args.keep or Path(tempfile.mkdtemp())
    keep.mkdir(parents=True, exist_ok=True)
    songs = songs_of(args.folders, args.splits, args.songs, args.longest)
    rows, edits = [], []
    for number, (source, song) in enumerate(songs):
        begun = time.perf_counter()
        head = {"source": source, "song": song.path.stem[:28]}
        out = keep / f"{number:02d}_{source}.mid"
        rows.append(head | continued(song, args.new, model, out))
        if number % 2 == 0:
            edits.append(head | edited(song, model, out))
        print(
            f"{number + 1}/{len(songs)} {source} {song.path.stem[:40]} {time.perf_counter() - begun:.0f} s", flush=True
        )
    totals = summary(rows, edits)
    report("faithful", rows, edits=edits, totals=totals, new_s=args.new, seed=1)
    for name, value in totals.items():
        print(f"{name}: {value}")


def summary(rows: list[dict], edits: list[dict]) -> dict[str, Any]:
    """The figures the table is for."""

    def median(name: str) -> float:
        return round(float(np.nanmedian([r[name] for r in rows])), 3)

    quiet = {who: sum(r[f"{who}gap s"] <= max(r["own gap s (95 %)"], NEAR_S) for r in rows) for who in ("", "loop ")}
    smooth = {
        f"{who}{name}": sum(not r[f"{who}{name} jump"] > 2 for r in rows)
        for who in ("", "loop ")
        for name in ("density", "level", "register")
    }
    return {
        "songs": len(rows),
        "events before the seam equal": sum(r["events equal"] for r in rows),
        "truncated notes": sum(r["truncated"] for r in rows),
        "read quietly by midicsv and pretty_midi": sum(not r["parses"] for r in rows),
        "last bar line within one bar of the target": sum(r["within a bar"] for r in rows),
        "last release within one bar of the target": sum(r["last release within a bar"] for r in rows),
        "exact: largest error ms": round(max(abs(r["exact ms"]) for r in rows), 2),
        "seam no more silent than the song's bar lines": f"{quiet['']}, loop {quiet['loop ']}",
        "jump of at most 2 sd": smooth,
        "median rough share": {n: median(n) for n in ("rough", "loop rough", "own rough")},
        "filled": f"{sum(r['fill'] for r in edits)} of {len(edits)}",
        "filled for one track": f"{sum(r['fill one'] for r in edits)} of {len(edits)}",
        "inserted": f"{sum(r['insert'] for r in edits)} of {len(edits)}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
