"""Whether continuations have the form of songs: contrast, change and return of sections, beside the songs' own.

    python benchmarks/form.py FOLDER… --splits splits.csv [--split valid] [--songs 3] [--prompt-s 62] [--model FOLDER]
        [--options '{"returns": 2}'] [--auc] [--jobs 2] [--seed 1] [--keep FOLDER] [--out form.json]

Each FOLDER is a source. Of each the first --songs that last 130 s and more take part, in an order that depends on
their names alone, one of each group of the split table. They are cut at the bar line nearest --prompt-s and continued
to 240 s or where they end: by midiex, which is given a file of the prompt alone, by looping its last eight bars, and by
repeating it from its beginning. Bands are songs with drums and at least three voices. Figures and protocol:
midiex/evaluation/form.py and form_study.py. With --auc also how well a classifier tells the same stretches from the
songs' own, without and with these figures, and which share of the overlap that a song has with its own next minute is
reached.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, table
from tqdm import tqdm

from midiex import score
from midiex.errors import MidiexError
from midiex.evaluation import discriminator, distance, form, form_study
from midiex.evaluation.bootstrap import pooled
from midiex.evaluation.excerpts import CONTINUATION_S, FORM_PROMPTS_S, Excerpt
from midiex.evaluation.findings import to_json
from midiex.evaluation.form_study import Cut, Judged
from midiex.evaluation.prompts import save_prompt
from midiex.evaluation.run import songs_of
from midiex.extend import Model, Passage, load

TRIED = 60  # times as many songs as are wanted are looked at
_model: list[Model] = []


@dataclass(frozen=True)
class Job:
    source: str
    path: Path
    group: str
    seed: int
    prompt_s: float
    options: dict[str, Any]
    auc: bool
    keep: Path | None


@dataclass(frozen=True)
class Result:
    judged: Judged
    told: dict[str, Any]  # for JSON
    vectors: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # by kind and writer


def begin(model: str | None, generate: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    loaded = load(model)
    config = replace(loaded.config, generate=replace(loaded.config.generate, **generate))
    _model[:] = [replace(loaded, config=config)]


def model() -> Model:
    """The one that this process has loaded."""
    return _model[0]


def name_of(model: str | None) -> str:
    return Path(model).resolve().name if model else "small"


def chosen(args: argparse.Namespace) -> list[Job]:
    """The first songs of each source that can be used, one of a group."""
    groups = {}
    if args.splits:
        with args.splits.open(newline="") as file:
            groups = {(row["source"], row["file"]): row["group"] for row in csv.DictReader(file)}
    jobs: list[Job] = []
    for source, paths in songs_of(args.folders, args.splits, args.split).items():
        used: set[str] = set()
        for path in paths[: TRIED * args.songs]:
            group = groups.get((source, path.name), path.name)
            if len(used) == args.songs or group in used or read(source, path, args.prompt_s) is None:
                continue
            used.add(group)
            seed = zlib.crc32(path.name.encode()) + args.seed
            jobs.append(Job(source, path, group, seed, args.prompt_s, args.options, args.auc, args.keep))
    return jobs


def read(source: str, path: Path, prompt_s: float) -> Cut | None:
    try:
        return form_study.cut(source, score.read(path), prompt_s)
    except MidiexError:
        return None


def judge(job: Job) -> Result | str:
    """All about one song, or why there is nothing."""
    one = read(job.source, job.path, job.prompt_s)
    assert one is not None, "songs are chosen by whether they can be read"
    began = time.perf_counter()
    try:
        passage = form_study.ours(one, model(), job.seed, **job.options)
    except MidiexError as error:
        return f"{job.path.name}: {error}"
    wall_s = time.perf_counter() - began
    music = form_study.songs(one, passage)
    judged = Judged(job.source, one.is_band, form_study.figures(one, music))
    told = {
        "source": job.source, "file": job.path.name, "group": job.group, "band": one.is_band, "seed": job.seed,
        "seam_bar": one.seam_bar + 1, "end_s": one.end_s, "wall_s": round(wall_s, 1), "chunks": len(passage.written),
        "resampled": sum(c.attempts > 1 for c in passage.written),
        "fallback": sum(c.fallback for c in passage.written),
        "came_back": sum(c.came_back is not None for c in passage.written), "figures": judged.figures,
        "plan": passage.form.to_dict() if passage.form else None,
    }  # fmt: skip
    if job.keep:
        keep(job, one, passage)
    if not job.auc:
        return Result(judged, told)
    told["overlap_share"] = overlap_shares(one, music)
    return Result(judged, told, vectors(one, music))


def keep(job: Job, one: Cut, passage: Passage) -> None:
    assert job.keep is not None
    job.keep.mkdir(parents=True, exist_ok=True)
    name = f"{job.source}__{job.path.stem}"
    save_prompt(one.song, one.seam_bar, job.keep / f"{name}_prompt.mid")
    passage.save(job.keep / f"{name}_ours.mid")


# ---- can a classifier tell? -----------------------------------------------------------------------------------------


def vectors(one: Cut, music: dict[str, Excerpt]) -> dict[tuple[str, str], np.ndarray]:
    """What the classifier sees of each writer's stretch, by kind and writer."""
    found = {}
    for writer, song in music.items():
        heard = song.part(*form_study.stretch(one, song))
        for kind, seen in discriminator.vectors(one.before, heard, one.prompt).items():
            found[kind, writer] = seen
    return found


def overlap_shares(one: Cut, music: dict[str, Excerpt]) -> dict[str, float]:
    """Overlap of each writer's first minute with the song's own, by that of the song's minute after; {} where the song
    has none."""
    at_s = float(one.music.bar_s[: one.seam_bar].sum())
    if one.music.seconds < at_s + 1.75 * CONTINUATION_S:
        return {}

    def minute(song: Excerpt, number: int) -> Excerpt:
        lines = [song.bar_at(at_s + k * CONTINUATION_S) for k in (number, number + 1)]
        return song.part(*lines)

    truth, beyond = minute(one.music, 0), minute(one.music, 1)
    if not len(truth.rows) or not len(beyond.rows):
        return {}
    ceiling = np.mean(list(distance.overlap(truth, beyond).values()))
    written = {writer: minute(song, 0) for writer, song in music.items() if writer != "real"}
    return {w: float(np.mean(list(distance.overlap(truth, m).values())) / ceiling) for w, m in written.items()}


def told_apart(results: list[Result]) -> list[dict[str, Any]]:
    """A row a writer: AUC by kind, and the share of the ceiling."""
    sources = [r.judged.source for r in results]
    groups, weights = [r.told["group"] for r in results], distance.equal_weights(sources)
    rows = []
    for writer in ("ours", *form.RIVALS):
        row: dict[str, Any] = {"writer": writer}
        for kind in discriminator.KINDS:
            real, other = (np.array([r.vectors[kind, w] for r in results]) for w in ("real", writer))
            scores = discriminator.out_of_fold(real, other, sources, groups)
            row[f"AUC, {kind}"] = discriminator.auc(scores, weights)
        shares: dict[str, list[float]] = {}
        for r in results:
            if writer in r.told["overlap_share"]:
                shares.setdefault(r.judged.source, []).append(r.told["overlap_share"][writer])
        row["overlap, share of the ceiling"] = pooled(shares).mean
        rows.append(row)
    return rows


# ---- tables ---------------------------------------------------------------------------------------------------------


def compared(judged: list[Judged]) -> dict[str, Any]:
    """Means by writer, how far they lie from the real ones, and on how many figures ours is the nearer one."""
    means = form_study.pooled_figures(judged)
    return {
        "songs": len(judged), "sources": len({j.source for j in judged}), "means": means,
        "distance": form.distances(means), "nearer": form.nearer(means),
    }  # fmt: skip


def show(name: str, found: dict[str, Any]) -> None:
    print(f"\n{name}: {found['songs']} songs of {found['sources']} sources; means, and how far from real")
    rows = []
    for figure in form.FIGURES:
        row: dict[str, Any] = {"figure": figure + ("" if figure in form.JUDGED else " (not judged)")}
        for writer, own in found["means"].items():
            away = "" if writer == "real" else f" ({found['distance'][writer][figure]:+.0%})"
            row[writer] = f"{own[figure]:.2f}{away}"
        rows.append(row)
    print(table(rows))
    for rival, count in found["nearer"].items():
        print(f"ours is nearer to real than {rival} on {count} of {len(form.JUDGED)}")


def show_sources(judged: list[Judged]) -> None:
    print("\nby source, real / ours")
    rows = []
    for source, means in form_study.figures_by_source(judged).items():
        shown = {f: f"{means['real'][f]:.2f} / {means['ours'][f]:.2f}" for f in form.FIGURES}
        rows.append({"source": source, "songs": sum(j.source == source for j in judged)} | shown)
    print(table(rows))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of all that choose songs and cut them as is done here; --songs and --out need defaults."""
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--songs", type=int, help="a source")
    parser.add_argument("--prompt-s", type=float, default=FORM_PROMPTS_S[0])
    parser.add_argument("--model")
    parser.add_argument("--generate", type=json.loads, default={}, help='settings as JSON, such as {"temperature": 1}')
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for prompts and results")
    parser.add_argument("--out", type=Path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--options", type=json.loads, default={}, help="of midiex.extend, as JSON")
    parser.add_argument("--auc", action="store_true", help="also whether a classifier can tell")
    parser.set_defaults(songs=3, out=RESULTS / "form.json")
    args = parser.parse_args()
    began = time.perf_counter()
    begin(args.model, args.generate)  # better to know now that it can be used
    jobs = chosen(args)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, begin, (args.model, args.generate)) as pool:
        found = list(tqdm(pool.map(judge, jobs), total=len(jobs), leave=False, mininterval=5))
    results = [r for r in found if isinstance(r, Result)]
    failed = [r for r in found if isinstance(r, str)]
    judged = [r.judged for r in results]
    told: dict[str, Any] = {
        "machine": machine() | {"wall_s": round(time.perf_counter() - began)},
        **{k: getattr(args, k) for k in ("split", "songs", "prompt_s", "options", "generate", "seed")},
        "model": name_of(args.model), "failed": failed,
        "pooled": compared(judged), "by_source": form_study.figures_by_source(judged),
    }  # fmt: skip
    show("pooled", told["pooled"])
    if bands := [j for j in judged if j.is_band]:
        told["bands"] = compared(bands)
        show("bands", told["bands"])
    show_sources(judged)
    if args.auc and len(results) < 2 * discriminator.FOLDS:
        print(f"\na classifier needs {2 * discriminator.FOLDS} songs to learn; there are {len(results)}")
    elif args.auc:
        told["auc"] = told_apart(results)
        print("\ncan a classifier tell the stretches from the songs' own? .5: no; 1: always")
        print(table(told["auc"]))
    told["each"] = [r.told for r in results]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(to_json(told) + "\n")
    print(f"\nsaved {args.out} after {told['machine']['wall_s']} s", *failed, sep="\n")


if __name__ == "__main__":
    main()
