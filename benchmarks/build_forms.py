"""Makes the shelf of real forms that ships with midiex, from the training split of prepared shards.

    python benchmarks/build_forms.py SHARDS [-o midiex/weights/forms.safetensors] [--hold-out 0]

SHARDS is what `midiex prepare` made. Of each source so many songs of LEAST_S and more are taken as QUOTAS says, evenly
over its files; with `--hold-out N` every N-th song is left out, to try the shelf on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from midiex import form_shelf
from midiex.dataset import Songs, load_split
from midiex.form_facts import Form, song_form
from midiex.tokens import BAR, INSTANCE, MAX_INSTANCES, MICRO_PER_BEAT, PROGRAM, sort_rows

LEAST_S, MOST_S, LEAST_PHRASES = 90.0, 900.0, 8
QUOTAS = {
    "pop909": 260, "freedoom": 100, "freedoom_history": 150, "simutrans": 50, "blasphemer": 20, "mma_openewld": 120,
    "mma_pop909": 60, "openscore_lieder": 150, "openscore_quartets": 100, "hauptstimme": 80, "mutopia": 120,
    "polish_scores": 160, "chopin_first_editions": 60, "pianolatron": 40, "musetrainer": 30, "openewld": 10,
    "groove_midi": 0,
}  # fmt: skip
DEFAULT_QUOTA = 20


def forms_of(songs: Songs, quota: int, hold_out: int) -> list[Form]:
    """Up to `quota` forms of a source's songs."""
    seconds = np.add.reduceat(songs.bar_s.astype(float), songs.song_bars[:-1])
    usable = [i for i in range(len(songs)) if LEAST_S <= seconds[i] <= MOST_S and not (hold_out and i % hold_out == 0)]
    if len(usable) > quota:
        usable = [usable[i] for i in np.linspace(0, len(usable) - 1, quota).astype(int)] if quota else []
    forms = []
    for index in usable:
        song = songs.song(index)
        rows = song.rows.copy()
        rows[:, INSTANCE] = rows[:, INSTANCE].clip(0, MAX_INSTANCES - 1)
        rows = sort_rows(rows)
        bars = min(len(song.bar_s), int(rows[-1, BAR]) + 1, form_shelf.MOST_PHRASES * 16)
        rows = rows[rows[:, BAR] < bars]
        voices = np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0)
        form = song_form(rows, voices, song.bar_units[:bars] / MICRO_PER_BEAT, song.bar_s[:bars]).form
        if len(form) >= LEAST_PHRASES:
            forms.append(form)
    return forms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, metavar="SHARDS")
    parser.add_argument("-o", "--out", type=Path, default=Path("midiex/weights") / form_shelf.FILE_NAME)
    parser.add_argument("--hold-out", type=int, default=0, metavar="N")
    asked = parser.parse_args()
    forms = []
    for songs in load_split(asked.shards, "train"):
        own = forms_of(songs, QUOTAS.get(songs.source, DEFAULT_QUOTA), asked.hold_out)
        print(f"{songs.source:24s} {len(own):5d} forms, {np.mean([len(f) for f in own] or [0]):5.1f} phrases")
        forms += own
    form_shelf.save(asked.out, forms)
    print(f"saved {len(forms)} forms, {asked.out.stat().st_size / 1e6:.2f} MB, as {asked.out}")


if __name__ == "__main__":
    main()
