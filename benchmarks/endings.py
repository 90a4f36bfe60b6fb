"""Compares the endings midiex finds with those marked by hand in endings.csv.

    python benchmarks/endings.py FOLDER…

Each FOLDER is a source and is looked through for the marked files. A mark is the first bar, counted from 1, that
somebody who wants the song to go on would cut away, sometimes with a second bar that is as good; without a bar the song
has no ending. An ending is right within one bar of a mark; where there is none, None is right.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from common import report

from midiex import endings, score, tokens

MARKS = Path(__file__).with_name("endings.csv")
NEAR_BARS = 1


def marked(folders: list[Path]) -> list[tuple[Path, dict[str, str]]]:
    """The marked songs that are in the folders: path and row of endings.csv."""
    with MARKS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    sources = {folder.name: folder for folder in folders}
    found = []
    for row in rows:
        if row["source"] in sources:
            found += [(path, row) for path in sorted(sources[row["source"]].rglob(row["file"]))[:1]]
    return found


def judge(path: Path, row: dict[str, str]) -> dict[str, Any]:
    """What was marked and what is found, as a row of the report; bars are counted from 1."""
    song = score.read(path)
    notes = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)
    ending = endings.find_ending(song, notes)
    marks = [int(row[name]) for name in ("first_bar", "also") if row[name]]
    bar = None if ending is None else ending.first_bar + 1
    off = min((abs(bar - mark) for mark in marks), default=None) if bar is not None else None
    return {
        "song": f"{row['source']}/{row['file'][-40:]}",
        "bars": int(notes[-1, tokens.BAR]) + 1,
        "marked": " or ".join(map(str, marks)) or "-",
        "found": bar or "-",
        "kinds": " ".join(ending.kinds) if ending else "-",
        "right": off is not None and off <= NEAR_BARS if marks else bar is None,
        "exact": off == 0 if marks else bar is None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    songs = marked(parser.parse_args().folders)
    if not songs:
        parser.error(f"none of the songs of {MARKS.name} is in these folders")
    rows = [judge(path, row) for path, row in songs]
    ending = [row for row in rows if row["marked"] != "-"]
    going_on = [row for row in rows if row["marked"] == "-"]
    totals = {
        "endings": len(ending),
        "right": sum(row["right"] for row in ending),
        "exact": sum(row["exact"] for row in ending),
        "without": len(going_on),
        "false_alarms": sum(not row["right"] for row in going_on),
    }
    report("endings", rows, **totals)
    print(", ".join(f"{name} {value}" for name, value in totals.items()))


if __name__ == "__main__":
    main()
