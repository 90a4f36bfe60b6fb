"""The page of an evaluation: quality.md with its pictures, and quality.json with every number.

Reads all that it says off what was found (findings.py) and knows neither models nor songs; SECTIONS tells what each
figure means and which way is good.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .. import plots
from ..errors import BadInput
from . import form
from .bootstrap import SHARE
from .excerpts import CONTINUATION_S
from .findings import FORM_GROUPS, HIGH, MINUTES, NOTHING, OWN, Measure, Run, Value, ordered, shown, to_json
from .pictures import PICTURES

__all__ = ["page", "to_json", "write_page"]


def write_page(result: dict[str, Any], out: str | Path) -> list[Path]:
    """Writes quality.json, the pictures and quality.md of a result of `evaluate` (or one read back from quality.json)
    into a folder, made if need be, and returns their paths. Each file appears whole or not at all, in the place of one
    of the same name; the page comes when all that it shows is there, and then pictures of an earlier run go that this
    one has not. Of the model's folder only the name is told.

    Raises BadInput when the folder cannot be written to.
    """
    folder, run = Path(out), Run.of(result)
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = [_write(folder / "quality.json", to_json(run.result) + "\n")]
    for name, draw in PICTURES.items():
        if (figure := draw(run)) is not None:
            plots.save(figure, folder / name)
            written.append(folder / name)
    written.append(_write(folder / "quality.md", page(run, [path.name for path in written])))
    for stale in {folder / name for name in PICTURES} - {*written}:
        with _told(stale):
            stale.unlink(missing_ok=True)
    return written


def _write(path: Path, text: str) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _told(path):
            part.write_text(text, encoding="utf-8", errors="replace")
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{path} cannot be written ({reason}); choose a folder that can be, with room.") from error


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    absent: str = ""  # why it may not be there
    by_source: tuple[Measure, ...] = ()  # a table each
    pooled: tuple[Measure, ...] = ()  # a row each of one table
    own: str = "song's own"  # head of the column of `Measure.own`
    more: Callable[[Run], list[str]] | None = None
    picture: str = ""  # of PICTURES


def page(run: Run, pictures: Iterable[str] = ()) -> str:
    """The page in Markdown; of the `pictures` those that exist are shown."""
    blocks = _opening(run)
    for number, section in enumerate(SECTIONS, 1):
        blocks += [f"## {number}. {section.title}", section.text.format_map(run.facts)]
        by_source, pooled = run.expanded(section.by_source), run.expanded(section.pooled)
        absent = [m.label.replace("{}", "…") for m in by_source + pooled if m.figure not in run.figures]
        if absent:
            names = f" ({'; '.join(absent)})" if len(absent) < len(by_source + pooled) else ""
            blocks.append(f"*Not measured{names}: {section.absent.format_map(run.facts)}.*")
        if section.picture in pictures:
            blocks.append(f"![{section.title}]({section.picture})")
        for m in by_source:
            if m.figure in run.figures:
                blocks += [f"**{_text(m.label)}** ({m.good})", _source_table(run, m, section.own)]
        blocks += _measure_table(run, pooled, section.own)
        blocks += section.more(run) if section.more else []
    return "\n\n".join(blocks) + "\n"


def _opening(run: Run) -> list[str]:
    result, model = run.result, run.result["model"]
    name, notes = _text(model["name"]), result["figures"].get("nll", {}).get("notes", {})
    machine = result.get("machine", "")
    lines = {
        "Model": f"{name}, {model['parameters']:,} parameters, weights {_text(model['fingerprint'])}",
        "Music": f"split {_text(result['split'])}; songs continued by {CONTINUATION_S:g} s: {_listed(result['songs'])}",
        "Asked for": _listed(result["scope"]),
        "Notes foreseen": _listed({source: f"{count:,}" for source, count in notes.items()}),
        "Settings": _listed({"seed": result["seed"], **result["generate"]}),
        "Machine": _listed(machine) if isinstance(machine, Mapping) else _text(machine),
    }
    glance = _measure_table(run, [m for s in SECTIONS for m in run.expanded((s.by_source + s.pooled)[:1])[:1]])
    has_ngram = any("ngram" in writers for writers in run.figures.values())
    return [
        f"# Quality of {name}",
        "\n".join(f"- {what}: {text}" for what, text in lines.items() if text),
        "Writers: *ours* is the model, *ngram* a back-off n-gram over the same notes"
        f"{'' if has_ngram else ' (absent: it learns from shards of training music, of which this run had none)'}, "
        "*loop* repeats the prompt's last bars, *repeat* the prompt from its beginning, *real* is the song itself. "
        "Every source weighs the same, however many songs it has; in parentheses the "
        f"{SHARE:.0%} bootstrap interval, songs drawn anew inside each source (none "
        "where it is rounded away). Bold is the best mean among those that write, whether or not intervals overlap; "
        f"{NOTHING} stands where there was nothing to measure.",
        *(["## At a glance", *glance] if glance else []),
    ]


def _source_table(run: Run, m: Measure, own: str) -> str:
    """A row a source, then the pooled values; with a column for the song's own if the measure has one."""
    values, owned = run.figures[m.figure], run.figures.get(m.own, {}).get("ours")
    writers, beside = ordered(values), [owned] if owned else []
    columns = [*(values[w] for w in writers), *beside]
    rows = [[source, *(shown(v.by_source.get(source, math.nan), m.spec) for v in columns)] for source in run.sources]
    rows.append(["**pooled**", *_pooled_cells(values, writers, m), *(shown(v.mean, m.spec) for v in beside)])
    rows.append([m.of, *(str(v.songs) for v in columns)])
    return _table(["source", *writers, *([own] if owned else [])], rows)


def _measure_table(run: Run, measures: Iterable[Measure], own: str = "") -> list[str]:
    """Pooled values, a row a measure, with a column for the song's own where a measure has one; [] without any."""
    there = [m for m in measures if m.figure in run.figures]
    writers = ordered(*(run.figures[m.figure] for m in there))
    own = own if any(m.own for m in there) else ""
    rows = []
    for m in there:
        values = run.figures[m.figure]
        counts = [v.songs for v in values.values() if v.songs]
        songs = " to ".join(dict.fromkeys(str(end(counts)) for end in (min, max))) if counts else NOTHING
        songs += f" {m.of}" if m.of != "songs" else ""
        owned = [shown(run.value(m.own, "ours").mean, m.spec)] if own else []
        rows.append([m.label, *_pooled_cells(values, writers, m), *owned, songs, m.good])
    return [_table(["", *writers, *([own] if own else []), "songs", ""], rows)] if rows else []


def _pooled_cells(values: Mapping[str, Value], writers: Iterable[str], m: Measure) -> list[str]:
    """Mean and interval of each writer, the best in bold."""
    cells, best = [], m.best(values)
    for w in writers:
        value = values.get(w, Value())
        text, low, high = (shown(v, m.spec) for v in (value.mean, value.low, value.high))
        text = f"**{text}**" if w in best else text
        cells.append(text if low == high else f"{text} ({low}, {high})")
    return cells


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [map(_text, head), ["---", *["---:"] * (len(head) - 1)], *([_text(row[0]), *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(things: Mapping[str, Any]) -> str:
    return ", ".join(f"{_text(k)} {_text(f'{v:g}' if isinstance(v, float) else v)}" for k, v in things.items())


def _text(text: Any) -> str:
    """A name as Markdown shows it, on one line and inside one cell."""
    return re.sub(r"([\\|`<\[\]])", r"\\\1", " ".join(str(text).split()))


def _shortfalls(run: Run) -> list[str]:
    """Where ours stays farthest behind the song itself."""
    behind = [(name, w["ours"], w["real"]) for name, w in run.features().items() if w.get("ours", 1) < w.get("real", 0)]
    named = ", ".join(f"{name} ({ours:.2f} of {real:.2f})" for name, ours, real in behind[:4])
    return [f"Farthest below *real* (overlap, ours of real): {named}."] if named else []


def _minutes(run: Run) -> list[str]:
    told = run.minutes()
    rows = [[str(k + 1), *map(shown, row)] for k, row in enumerate(zip_longest(*told.values(), fillvalue=math.nan))]
    rows.append(["all songs' own", *(shown(run.value(*MINUTES[name][1:]).mean) for name in told)])
    return [_table(["minute", *(MINUTES[name][0] for name in told)], rows)] if told else []


def _forms(run: Run) -> list[str]:
    """Each group's means beside the real ones, on how many figures ours is nearer to these, and sources one by one."""
    blocks = []
    for (group, prompt_s), told in run.forms().items():
        means = {writer: {name: value.mean for name, value in own.items()} for writer, own in told.items()}
        rows = []
        for name, label in FORM_LABELS.items():
            cells = [shown(means["real"].get(name, math.nan))]
            for writer in ordered(set(told) - {"real"}):
                cells.append(_beside(means[writer].get(name, math.nan), means["real"].get(name, math.nan)))
            rows.append([label, *cells])
        near = [f"than {rival} on {n} of {len(FORM_LABELS)}" for rival, n in form.nearer(means).items()]
        title = f"**{FORM_GROUPS[group]}, prompt of {prompt_s} s**, and how far from *real*"
        blocks.append(title + (f"; ours is nearer to it {', '.join(near)}" if near else ""))
        blocks.append(_table(["", "real", *ordered(set(told) - {"real"})], rows))
        if group == "form" and "ours" in told:
            blocks.append(f"By source, prompt of {prompt_s} s: *real* / ours, and how far from it")
            blocks.append(_table(["source", *FORM_LABELS.values()], _source_forms(run, told)))
    return blocks


def _source_forms(run: Run, told: Mapping[str, Mapping[str, Value]]) -> list[list[str]]:
    rows = []
    for source in run.sources:
        pairs = [
            [told[writer].get(name, Value()).by_source.get(source, math.nan) for writer in ("real", "ours")]
            for name in FORM_LABELS
        ]
        if any(map(math.isfinite, (real for real, _ in pairs))):
            rows.append([source, *(f"{shown(real)} / {_beside(ours, real)}" for real, ours in pairs)])
    return rows


def _beside(value: float, real: float) -> str:
    """A value and how far it lies from the real one."""
    away = (value - real) / real if real else math.nan
    return shown(value) if math.isnan(away) else f"{shown(value)} ({away:+.0%})"


FORM_LABELS = {  # of form.JUDGED
    "dens_cv": "density, variation", "contrast": "contrast of sections", "adj_sd": "likeness of neighbours, spread",
    "track_cv": "a voice's own variation", "sets": "sets of voices", "returns_5": "phrases that return by half",
    "returns_8": "by four fifths",
}  # fmt: skip
SECTIONS = (
    Section("How well real music is foreseen",
        "How surprised each writer is by a note of real music when it is told all notes before: nats a note, over all "
        "its fields and the decisions that a chunk ends (in the field *bar*). Lower is better. As in use, *ours* and "
        "*ngram with song* count the whole song so far.",
        "no song had a stretch of music to foresee",
        (Measure("nll", "nats a note"),), (Measure("nll_(.*)", "of them for {}"),), picture="quality_nll.png"),
    Section("Choosing the true next chunk",
        "How often the model finds the chunk that really follows likelier than three of other songs, put into its key "
        "and on its instruments. Simple chunks are likely anywhere; the second figure therefore takes from each "
        "chunk's likelihood what it is at a song's beginning. Higher is better; blind choice gives {chance}.",
        "no chunk had three fitting foils", (Measure("choice", "choice among four", HIGH, of="questions"),
         Measure("recognised", "the same, by what the music before adds", HIGH, of="questions"))),
    Section("Nearness to the song's own continuation",
        "After {prompt_s} s of a song each writer goes on for {next_s} s, which is laid over what the song itself does "
        "there, feature by feature. The share of the ceiling is that overlapped area by *real*'s, which is the song's "
        "minute after that: 1 is as near as a song is to itself. Higher is better, of KLD lower. Sets are compared as "
        "mgeval does, without pairing songs.",
        "the songs are too few or too short; the ceiling needs another {next_s} s of a song, sets need three songs",
        (Measure("overlap_share", "overlap, share of the ceiling", HIGH),),
        (Measure("overlap", "overlapped area, song by song", HIGH), Measure("set_oa", "overlapped area of sets", HIGH),
         Measure("set_kld", "KLD of sets, nats")), more=_shortfalls, picture="quality_overlap.png"),
    Section("Can a classifier tell?",
        "Boosted trees that have not seen the song rate whether a minute was written or is the song's own: an AUC of "
        "0.5 is a guess, 1 is always right. Nearer 0.5 is better. *real*, the song's minute after, differs by its "
        "place alone. With the prompt known the trees are stricter; with form they also see the figures of section 11.",
        "the trees need {least} continued songs of a writer, of which there were {songs_heard}",
        pooled=(Measure("auc, (.*)", "AUC, {}", 0.5),)),
    Section("Structure",
        "Does music come back as it does in the song? Compression is how much shorter the notes get when what recurs "
        "is written once, the repeat is the longest exact one, likeness is that of bars so far apart. Each is best "
        "near the song's own: *real* in the first two tables, *truth* in likeness, where *real* is the minute after. "
        "The error is the distance from the song's own likeness, song by song: lower is better.",
        "no song was continued, or none so long that enough bars lie so far apart",
        (Measure("compression", "compression", "real"),
         Measure("longest_repeat_bars", "longest repeat, bars", "real", ".1f")),
        (Measure(r"similarity_(\d+)", "likeness at lag {}", "truth"),
         Measure(r"similarity_error_(\d+)", "error at lag {}")), picture="quality_similarity.png"),
    Section("Staying power",
        "Ours alone goes on for {long_min} min. Silence, strikes and verbatim loops should stay near the song's own, "
        "though longer music has longer extremes; faults are best at zero, and what is told minute by minute best "
        "stays where it begins. *All songs' own* is a minute of music, as in the other sections.",
        "no song was continued for so long ({long_songs} asked for)",
        pooled=(Measure("staying_stuck", "songs with stuck notes", spec=".1%"),
         Measure("staying_silent", "songs that fall silent", spec=".1%"),
         Measure("staying_silence_s", "longest silence, s", OWN, own="staying_own_silence_s"),
         Measure("staying_held_notes", "notes held too long"),
         Measure("staying_strikes", "strikes of one pitch in a row", OWN, spec=".1f", own="staying_own_strikes"),
         Measure("staying_repeats", "times a loop is played in a row", OWN, spec=".1f", own="staying_own_repeats"),
         Measure("staying_looped_bars", "bars in loops too long", spec=".1f"),
         Measure("staying_resampled", "chunks tried again", spec=".1%"),
         Measure("staying_fallback", "chunks taken from the song instead", spec=".1%")),
        more=_minutes, picture="quality_minutes.png"),
    Section("The seam",
        "How the new music joins on: silence, rough intervals against notes that ring across, and jumps from the last "
        "bar to the first, in units of the prompt's own steps from bar to bar. *real* is the song itself at that bar "
        "line. Less silence and roughness are better, jumps are best near *real*'s.",
        "no song was continued, or nothing rings across",
        (Measure("seam_gap_s", "silence at the seam, s", own="seam_own_gap_s"),),
        (Measure("seam_rough", "rough intervals", spec=".1%", own="seam_own_rough"),
         Measure("seam_(.*)_jump", "jump in {}", "real")), own="prompt's bar lines"),
    Section("Mood",
        "How far arousal and valence (rough measures of calm to excited and dark to bright) lie from the prompt's, and "
        "how they change a minute. Distances are best near those of *real*, the song itself; changes near 0. Long: "
        "ours for five minutes, and the song as far as it goes on, five minutes at most.",
        "no song was continued, or the music is too short for a change",
        (Measure("mood_arousal_distance", "arousal, distance", "real", own="mood_arousal_own_distance"),
         Measure("mood_valence_distance", "valence, distance", "real", own="mood_valence_own_distance")),
        (Measure("mood_(.*)_slope", "{}, change a minute", 0.0),
         Measure("staying_mood_([a-z]+)_distance", "{}, distance, long", "real", own="staying_mood_{}_own_distance"),
         Measure("staying_mood_(.*)_slope", "{}, change a minute, long", 0.0)), own="prompt's stretches"),
    Section("Originality",
        "What is shared with the training music, in any key: eight-note grams, and the longest run of notes. *real* is "
        "held-out music and shares what all music shares; more than that is copying. Lower is better, though little "
        "alone is no merit: noise shares nothing.",
        "it needs the shards of the training music, of which this run had none",
        (Measure("shared_grams", "grams found in training music", spec=".1%"),
         Measure("shared_run_notes", "longest shared run, notes", spec=".1f")),
        (Measure("shared_grams quantile (.*)", "grams, quantile {} of songs", spec=".1%"),
         Measure("shared_run_notes quantile (.*)", "longest run, quantile {} of songs", spec=".0f"))),
    Section("MIREX 2025",
        "`midiex mirex prompt.json` continues a prompt of that task in its own format, so that listeners can judge "
        "midiex beside its entries; it is not measured here."),
    Section("Form",
        "Songs of {form_least_s} s and more, cut after about {form_prompts} s, are continued to {form_most_s} s or "
        "where they end; *ours* knows the prompt alone, *repeat* is all of it again from its beginning, *real* the "
        "song over the same seconds. Over blocks of four bars: coefficients of variation of notes a second, in all and "
        "voice by voice; how unlike the unlikest blocks are, and by how much likeness of neighbours varies; how many "
        "sets of voices play; and which share of the phrases had half, or four fifths, of their notes in one earlier "
        "phrase, the prompt's included. Each is best near *real*'s. Bands are songs with drums and at least three "
        "voices.",
        "no song was continued for so long ({form_songs} a source asked for), or all are too short",
        pooled=(Measure(r"form_(\d+)_(dens_cv|contrast|adj_sd|track_cv|sets|returns_5|returns_8)",
                        "{1}, prompt of {0} s", "real"),),
        more=_forms),
)  # fmt: skip
