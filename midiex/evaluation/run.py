"""The evaluation as a whole: songs are cut, continued and judged, each in a worker process; figures are pooled.

`evaluate` gives one nested dictionary, ready for JSON, which page.py shows. Its "figures" are {figure: {writer: …}}
with each writer's mean by source, and the mean over sources with its interval. Writers are "ours", "ngram", "loop",
"repeat" and "real" (the song itself, one minute on: how much a song differs from itself).
"""

from __future__ import annotations

import csv
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from ..checkpoint import fingerprint
from ..dataset import load_split
from ..errors import BadInput
from ..extend import Model, load
from ..smf import MIDI_SUFFIXES
from . import discriminator, distance, features, form, form_study, originality, work
from .bootstrap import Values, by_source, pooled
from .excerpts import FORM_PROMPTS_S
from .form_study import Judged
from .ngram import NGram
from .work import Foreseen, FormJob, Heard, Job

TRIED = 4  # times as many songs as are wanted are looked at
FORM_TRIED = 12  # of those that are to be long
NGRAM_NOTES = 6_000_000  # of the training songs, that the n-gram counts
AnyJob = TypeVar("AnyJob", Job, FormJob)


@dataclass(frozen=True)
class Scope:
    """How much is evaluated."""

    songs: int  # a source, continued by a minute
    windows: int  # a source, of a minute each, for nats a note and the choice among foils
    long_songs: int  # in all, continued by `long_s`
    long_s: float
    form_songs: int = 0  # a source, of which each is continued for minutes after a prompt of each of FORM_PROMPTS_S


QUICK = Scope(songs=2, windows=4, long_songs=2, long_s=300.0, form_songs=1)
FULL = Scope(songs=12, windows=24, long_songs=30, long_s=1200.0, form_songs=6)


def evaluate(
    folders: Sequence[str | Path],
    *,
    model: str | Path | None = None,
    shards: str | Path | None = None,
    splits: str | Path | None = None,
    split: str = "test",
    scope: Scope = QUICK,
    seed: int = 0,
    jobs: int = 1,
    generate: dict[str, Any] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """All figures for a model over folders of MIDI, each a source named as the folder.

    `splits` is a CSV with columns source, file, split, of which the songs of `split` are taken; else all are. `shards`
    (of `midiex prepare`) are what the n-gram learns from and originality is judged by; without them both are left out.
    `generate` overrides the model's settings, `progress(stage, done, total)` is called now and then.

    Raises BadInput for folders without songs that can be used.
    """
    files = songs_of(folders, splits, split)
    if seed < 0:
        raise BadInput(f"The seed {seed} is below 0; give 0 or more.")
    discriminator.boosting()  # better to know now that all is there
    loaded = _loaded(model, generate or {})
    with TemporaryDirectory() as scratch:
        counted = None if shards is None else Path(scratch) / "ngram.safetensors"
        index = _learned(shards, counted, seed, progress) if shards is not None and counted else None
        args = (None if model is None else str(model), counted, generate or {})
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, work.begin, args) as pool:
            foreseen = _all(
                pool.map(work.foresee, _windows(files, scope, seed)), "foreseeing real music", len(files), progress
            )
            heard = _continued(pool, files, scope, seed, progress)
            long_jobs = [Job(h.source, h.path, h.seed, scope.long_s) for h in _in_turn(heard, scope.long_songs)]
            long = _all(pool.map(work.continue_song, long_jobs), "staying power", len(long_jobs), progress)
            forms = _forms(pool, files, scope, seed, progress)
            judged = _all(pool.map(work.judge, heard), "judging", len(heard), progress)
            judged_long = _all(pool.map(work.judge_long, [h for h in long if h]), "judging", len(long), progress)
    figures = _foreseen_figures(foreseen) | _collected(judged) | _long_figures(judged_long)
    figures |= _set_figures(heard) | _form_figures(forms)
    if index is not None:
        figures |= _originality(heard, index)
    return {
        "model": {
            "name": Path(model).resolve().name if model else "small",
            "fingerprint": fingerprint(None if model is None else str(model)),
            "parameters": sum(p.numel() for p in loaded.network.parameters()),
        },
        "scope": asdict(scope), "split": split if splits else "all", "seed": seed,
        "generate": asdict(loaded.config.generate) | (generate or {}),
        "songs": {source: sum(h.source == source for h in heard) for source in files},
        "figures": figures,
        "by_feature": _by_feature(judged),
        "by_minute": _by_minute(judged_long),
        "discriminator": _discriminated(heard),
    }  # fmt: skip


def _loaded(model: str | Path | None, generate: dict[str, Any]) -> Model:
    loaded = load(model)
    try:
        replace(loaded.config.generate, **generate)
    except TypeError:
        raise BadInput(f"Of the settings {', '.join(generate)} not all are a model's; see midiex/config.py.") from None
    return loaded


def _learned(
    shards: str | Path, counted: Path, seed: int, progress: Callable[[str, int, int], None] | None
) -> originality.Index:
    """The n-gram of training music is saved as `counted`; the index is what originality is judged by."""
    if progress:
        progress("training the n-gram", 0, 1)
    training = load_split(shards, "train")
    if not training:
        raise BadInput(f"{shards} holds no training shards; make some with `midiex prepare`.")
    NGram.train(training, NGRAM_NOTES, seed).save(counted)
    return originality.build(training)


def _continued(
    pool: ProcessPoolExecutor,
    files: dict[str, list[Path]],
    scope: Scope,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> list[Heard]:
    """Some songs of each source, with what the model and others make of them."""
    tried = [
        Job(source, path, zlib.crc32(path.name.encode()) + seed, None)
        for source, paths in files.items()
        for path in paths[: TRIED * scope.songs]
    ]
    usable = _all(pool.map(work.is_usable, tried), "looking for songs", len(tried), progress)
    wanted = _first_of_each([job for job, good in zip(tried, usable, strict=True) if good], scope.songs)
    results = _all(pool.map(work.continue_song, wanted), "continuing songs", len(wanted), progress)
    heard: list[Heard] = [result for result in results if result is not None]
    if not heard:
        raise BadInput(f"Of {len(tried)} songs none can be continued; give songs of 75 seconds and more.")
    return heard


def songs_of(folders: Sequence[str | Path], splits: str | Path | None, split: str) -> dict[str, list[Path]]:
    """MIDI files of each folder, in an order that does not depend on what they are called or how they sound."""
    wanted = None
    if splits is not None:
        try:
            with open(splits, newline="", encoding="utf-8") as file:
                wanted = {(r["source"], r["file"]) for r in csv.DictReader(file) if r["split"] == split}
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise BadInput(
                f"The split table {splits} cannot be used ({error}); it needs columns source, file and split."
            ) from None
    found: dict[str, list[Path]] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder; give folders that hold MIDI files.")
        name = folder.resolve().name
        files = [p for p in folder.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES and p.is_file()]
        files = [p for p in files if wanted is None or (name, p.name) in wanted]
        if files:
            found[name] = sorted([*found.get(name, []), *files], key=lambda p: (zlib.crc32(p.name.encode()), p.name))
    if not found:
        raise BadInput("None of the folders holds a MIDI file to evaluate on; check the split table if there is one.")
    return found


def _windows(files: dict[str, list[Path]], scope: Scope, seed: int) -> list[tuple[str, list[Path], list[Path], int]]:
    """What `work.foresee` is given: a source's files, and a few of other sources for foils."""
    return [
        (source, paths[: scope.windows], [p for s, others in files.items() if s != source for p in others[:2]], seed)
        for source, paths in files.items()
    ]


def _all(results: Iterator[Any], stage: str, total: int, progress: Callable[[str, int, int], None] | None) -> list[Any]:
    found = []
    for result in results:
        found.append(result)
        if progress:
            progress(stage, len(found), total)
    return found


def _first_of_each(jobs: list[AnyJob], songs: int) -> list[AnyJob]:
    """The first `songs` of each source."""
    kept: list[AnyJob] = []
    for job in jobs:
        if sum(k.source == job.source for k in kept) < songs:
            kept.append(job)
    return kept


def _in_turn(heard: list[Heard], most: int) -> list[Heard]:
    """One of each source after another."""
    rank: dict[str, int] = {}
    order = []
    for one in heard:
        rank[one.source] = rank.get(one.source, -1) + 1
        order.append((rank[one.source], one))
    return [one for _, one in sorted(order, key=lambda o: o[0])][:most]


def _forms(
    pool: Any,
    files: dict[str, list[Path]],
    scope: Scope,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> dict[float, list[Judged]]:
    """Figure 11 of the first songs of each source that are long enough, by the prompt's length."""
    found: dict[float, list[Judged]] = {}
    for prompt_s in FORM_PROMPTS_S if scope.form_songs else ():
        tried = [
            FormJob(source, path, zlib.crc32(path.name.encode()) + seed, prompt_s)
            for source, paths in files.items()
            for path in paths[: FORM_TRIED * scope.form_songs]
        ]
        usable = _all(pool.map(work.has_form, tried), "looking for long songs", len(tried), progress)
        wanted = _first_of_each([job for job, good in zip(tried, usable, strict=True) if good], scope.form_songs)
        stage = f"form after {prompt_s:g} s"
        found[prompt_s] = [j for j in _all(pool.map(work.judge_form, wanted), stage, len(wanted), progress) if j]
    return found


# ---- figures --------------------------------------------------------------------------------------------------------


def _figure(writers: Mapping[str, Values]) -> dict[str, Any]:
    return {
        writer: {"pooled": asdict(pooled(values)), "by_source": by_source(values)} for writer, values in writers.items()
    }


def _collected(judged: Sequence[work.Judged]) -> dict[str, Any]:
    """{figure: …} of what `work.judge` found song by song."""
    tables: dict[str, dict[str, dict[str, list[float]]]] = {}
    for song in judged:
        for (figure, writer), value in song.figures.items():
            tables.setdefault(figure, {}).setdefault(writer, {}).setdefault(song.source, []).append(value)
    return {figure: _figure(writers) for figure, writers in tables.items()}


def _foreseen_figures(foreseen: Sequence[Foreseen]) -> dict[str, Any]:
    writers = {w for f in foreseen for w in f.nats}
    found: dict[str, Any] = {}
    names = ["nll", *(f"nll_{name}" for name in work.FIELD_NAMES)]
    for k, name in enumerate(names):
        found[name] = _figure({
            writer: {
                f.source: [((n.sum() if k == 0 else n[k - 1]) / notes, notes)
                           for n, notes in zip(f.nats.get(writer, []), f.notes, strict=True)]
                for f in foreseen
            }
            for writer in sorted(writers)
        })  # fmt: skip
    found["nll"]["notes"] = {f.source: int(sum(f.notes)) for f in foreseen}
    found["choice"] = _figure({"ours": {f.source: f.chosen for f in foreseen}})
    found["recognised"] = _figure({"ours": {f.source: f.recognised for f in foreseen}})
    return found


def _long_figures(judged: Sequence[work.JudgedLong]) -> dict[str, Any]:
    tables: dict[str, dict[str, dict[str, list[float]]]] = {}
    for song in judged:
        for writer, figures in (("ours", song.figures), ("real", song.real)):
            for name, value in figures.items():
                tables.setdefault(name, {}).setdefault(writer, {}).setdefault(song.source, []).append(value)
    return {f"staying_{name}": _figure(writers) for name, writers in tables.items()}


def _form_figures(forms: Mapping[float, Sequence[Judged]]) -> dict[str, Any]:
    """{figure: …} of form after prompts of so many seconds, of all songs and of bands alone."""
    found: dict[str, Any] = {}
    for prompt_s, judged in forms.items():
        for group, songs in (("form", judged), ("band_form", [j for j in judged if j.is_band])):
            tables = form_study.tables(songs)
            for name in form.FIGURES if songs else ():
                writers = {writer: table[name] for writer, table in tables.items()}
                found[f"{group}_{prompt_s:g}_{name}"] = _figure(writers)
    return found


def _by_feature(judged: Sequence[work.Judged]) -> dict[str, dict[str, float]]:
    """Overlapped area of each feature by writer, equal weight a source."""
    names = sorted({name for song in judged for overlaps in song.overlaps.values() for name in overlaps})
    writers = sorted({writer for song in judged for writer in song.overlaps})
    found: dict[str, dict[str, float]] = {}
    for writer in writers:
        for name in names:
            values: dict[str, list[float]] = {}
            for song in judged:
                if writer in song.overlaps and name in song.overlaps[writer]:
                    values.setdefault(song.source, []).append(song.overlaps[writer][name])
            found.setdefault(writer, {})[name] = pooled(values).mean
    return found


def _by_minute(judged: Sequence[work.JudgedLong]) -> dict[str, list[float]]:
    """Figures of each minute of long continuations, means over songs."""
    names = sorted({name for song in judged for name in song.by_minute})
    longest = {n: max(len(song.by_minute[n]) for song in judged) for n in names}
    return {
        n: [
            pooled({"all": [song.by_minute[n][k] for song in judged if len(song.by_minute[n]) > k]}).mean
            for k in range(longest[n])
        ]
        for n in names
    }


def _set_figures(heard: Sequence[Heard]) -> dict[str, Any]:
    """OA and KLD between sets of songs, as mgeval has them, by writer: means over features."""
    found: dict[str, Any] = {"set_oa": {}, "set_kld": {}}
    for writer in (*work.WRITERS, "real"):
        songs = [(h, h.music(writer)) for h in heard]
        pairs = [(h, music) for h, music in songs if music is not None]
        if len(pairs) < 3:
            continue
        real, other = [_described(h.truth) for h, _ in pairs], [_described(m) for _, m in pairs]
        distances = distance.set_distance(real, other, distance.equal_weights([h.source for h, _ in pairs]))
        for k, figure in enumerate(("set_oa", "set_kld")):
            found[figure][writer] = {"mean": float(np.nanmean([d[k] for d in distances.values()])),
                                     "by_feature": {name: d[k] for name, d in distances.items()}}  # fmt: skip
    return found


def _described(music: Any) -> dict[str, Any]:
    return features.histograms(music) | features.scalars(music)


def _discriminated(heard: Sequence[Heard]) -> dict[str, Any]:
    """AUC of telling each writer's minutes from the songs' own, for each of discriminator.KINDS."""
    found: dict[str, Any] = {}
    for writer in (*work.WRITERS, "real"):
        pairs = [(h, m) for h in heard if (m := h.music(writer)) is not None]
        if len(pairs) < 2 * discriminator.FOLDS:
            continue
        sources = [h.source for h, _ in pairs]
        weights = distance.equal_weights(sources)
        real = [discriminator.vectors(h.prompt, h.truth, h.prompt) for h, _ in pairs]
        written = [discriminator.vectors(h.before(writer), m, h.prompt) for h, m in pairs]
        rng = np.random.default_rng(0)
        drawn = [rng.integers(0, len(pairs), len(pairs)) for _ in range(200)]
        for kind in discriminator.KINDS:
            truth, other = (np.array([one[kind] for one in side]) for side in (real, written))
            scores = discriminator.out_of_fold(truth, other, sources)
            spread = [discriminator.auc(scores[:, d], weights[d]) for d in drawn]
            low, high = np.quantile(spread, [0.025, 0.975])
            found.setdefault(kind, {})[writer] = {
                "auc": discriminator.auc(scores, weights), "low": float(low), "high": float(high), "songs": len(pairs),
            }  # fmt: skip
    return found


def _originality(heard: Sequence[Heard], index: originality.Index) -> dict[str, Any]:
    """What is shared with training music, by writer; "real" is the held-out songs' own minutes."""
    shares: dict[str, dict[str, list[float]]] = {}
    runs: dict[str, dict[str, list[float]]] = {}
    for h in heard:
        for writer, music in (("ours", h.music("ours")), ("ngram", h.music("ngram")), ("real", h.truth)):
            if music is not None:
                shares.setdefault(writer, {}).setdefault(h.source, []).append(originality.share(music, index))
                run = originality.longest_shared_run(music, index).notes
                runs.setdefault(writer, {}).setdefault(h.source, []).append(float(run))
    found = {"shared_grams": _figure(shares), "shared_run_notes": _figure(runs)}
    for name, table in (("shared_grams", shares), ("shared_run_notes", runs)):
        for writer, values in table.items():
            known = [v for vs in values.values() for v in vs if not np.isnan(v)] or [np.nan]
            found[name][writer]["quantiles"] = {q: float(np.quantile(known, float(q))) for q in ("0.5", "0.95", "1")}
    return found
