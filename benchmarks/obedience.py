"""Whether what a plan asks of a phrase comes out: who plays, how dense, loud and high, how like an earlier phrase.

    python benchmarks/obedience.py FOLDER… --splits splits.csv [--split valid] [--songs 2] [--prompt-s 62]
        [--seconds 240] [--model FOLDER] [--generate '{"candidates": 4}'] [--jobs 2] [--seed 1] [--keep FOLDER]
        [--out obedience.json]

Each FOLDER is a source, of which the first --songs of benchmarks/form.py take part, cut like there. The plan has the
phrases that midiex would plan and other askings, drawn at random within what the song itself does
(midiex/evaluation/obedience.py). Correlations are Spearman's, of ranks within a song, every song weighing the same;
"new" are phrases without a source, whose amounts no source contradicts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import form
import numpy as np
from common import RESULTS, machine, table
from tqdm import tqdm

import midiex
from midiex import score
from midiex.errors import MidiexError
from midiex.evaluation import obedience, writers
from midiex.evaluation.excerpts import MOST_S, Excerpt, whole
from midiex.evaluation.findings import to_json
from midiex.evaluation.form_study import Cut
from midiex.evaluation.obedience import AMOUNTS, LIKENESSES, Answer
from midiex.evaluation.prompts import save_prompt
from midiex.extend import Passage, start
from midiex.form_plan import FormPlan
from midiex.roles import Voice, voice_roles
from midiex.tokens import BAR, voice_ids


@dataclass(frozen=True)
class Told:
    answers: list[Answer]
    told: dict[str, Any]  # for JSON


def judge(task: tuple[form.Job, float]) -> Told | str:
    """What came out in one song, or why nothing did."""
    job, seconds = task
    one = form.read(job.source, job.path, job.prompt_s)
    assert one is not None, "songs are chosen by whether they can be read"
    began = time.perf_counter()
    try:
        passage, plan, roles = written(job, one, seconds)
    except MidiexError as error:
        return f"{job.path.name}: {error}"
    answers = answered(passage, plan, roles)
    if job.keep:
        form.keep(job, one, passage)
    told = {
        "source": job.source, "file": job.path.name, "seed": job.seed, "wall_s": round(time.perf_counter() - began, 1),
        "chunks": [{"asked": a.asked, "found": a.found, "voices": a.voices} for a in answers],
        "fallback": sum(c.fallback for c in passage.written), "plan": plan.to_dict(),
    }  # fmt: skip
    return Told(answers, told)


def written(job: form.Job, one: Cut, seconds: float) -> tuple[Passage, FormPlan, dict[Voice, int]]:
    """The song's beginning, continued by a plan that asks at random."""
    where: dict[str, Any] = {"begin": f"bar:{one.seam_bar + 1}", "open_end": True}
    with TemporaryDirectory() as folder:
        prompt = save_prompt(one.song, one.seam_bar, Path(folder) / f"{job.path.stem}.mid")
        usual = midiex.plan(prompt, seconds, seed=job.seed, **where)
        song = score.read(prompt)
        before = whole(song)
        roles = voice_roles(before.rows)
        plan = obedience.ask(usual, before, voice_ids(song.score), roles, np.random.default_rng(job.seed))
        passage = start(prompt, seconds, model=form.model(), seed=job.seed, plan=plan, **where)
    for _ in passage.chunks():
        pass
    return passage, plan, roles


def answered(passage: Passage, plan: FormPlan, roles: dict[Voice, int]) -> list[Answer]:
    """What came out, phrase by phrase."""
    result = writers.so_far(passage)
    answers = []
    for phrase, chunk in zip(plan.phrases, passage.written, strict=True):
        before = Excerpt(result.rows[result.rows[:, BAR] < chunk.first_bar], result.bar_beats, result.bar_s)
        seconds = float(result.bar_s[chunk.first_bar : chunk.first_bar + chunk.bars].sum())
        answers.append(obedience.answer(phrase, chunk.rows, seconds, before, passage.voices, roles))
    return answers


def rows_of(songs: list[list[Answer]]) -> list[dict[str, Any]]:
    """A row an asking; amounts also for phrases without a source."""
    new = [[a for a in answers if a.is_new] for answers in songs]
    asked = [(name, name, songs) for name in (*AMOUNTS, *LIKENESSES)] + [(f"{n}, new", n, new) for n in AMOUNTS]
    rows = []
    for label, name, answers in asked:
        found = obedience.obedience(answers, name)
        rows.append({"asked": label, "rank correlation": found.correlation, "mean absolute error": found.error,
                     "chunks": found.chunks, "songs": found.songs})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form.add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=MOST_S)
    parser.set_defaults(songs=2, out=RESULTS / "obedience.json", auc=False, options={})
    args = parser.parse_args()
    began = time.perf_counter()
    form.begin(args.model, args.generate)  # better to know now that it can be used
    jobs = form.chosen(args)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, form.begin, (args.model, args.generate)) as pool:
        results = pool.map(judge, [(job, args.seconds) for job in jobs])
        found = list(tqdm(results, total=len(jobs), leave=False, mininterval=5))
    told = [one for one in found if isinstance(one, Told)]
    failed = [one for one in found if isinstance(one, str)]
    songs = [one.answers for one in told]
    rows, voices = rows_of(songs), obedience.voices_obeyed(songs)
    print(table(rows))
    print(
        f"\nvoices that play or are silent as asked: {voices:.1%}, in {sum(map(len, songs))} chunks "
        f"of {len(songs)} songs"
    )
    result = {
        "machine": machine() | {"wall_s": round(time.perf_counter() - began)}, "model": form.name_of(args.model),
        **{k: getattr(args, k) for k in ("split", "songs", "prompt_s", "seconds", "generate", "seed")},
        "failed": failed, "voices": voices, "rows": rows, "each": [one.told for one in told],
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(to_json(result) + "\n")
    print(f"saved {args.out} after {result['machine']['wall_s']} s", *failed, sep="\n")


if __name__ == "__main__":
    main()
