"""Makes the gallery: songs nobody trained on, continued, each beside what it does itself; of the first there is audio.

    python benchmarks/gallery.py FOLDER… [--splits splits.csv] [--model FOLDER] [--out docs/gallery]
                                 [--songs 10] [--prompt-s 62] [--seconds 180] [--seed 0] [--audio 3]

Each FOLDER is a source; with --splits only its test songs are used, one of each group. Songs of 130 s or more take
part: the sources in turn by name, the files of each in the order of their names' CRC-32, so that nobody chooses. They
are cut at the bar line nearest --prompt-s; midiex is given a file of what is before it alone, and goes on to --seconds
or where the song ends. Same songs, model and seed on the same machine: same bytes. The files appear in --out together,
once all are made.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from midiex import audiofile, provenance, score
from midiex.describe import describe
from midiex.errors import BadInput, MidiexError
from midiex.evaluation import form_study, writers
from midiex.evaluation.excerpts import FORM_PROMPTS_S, LONG_S
from midiex.evaluation.form_study import Cut
from midiex.evaluation.prompts import save_prompt
from midiex.evaluation.run import songs_of
from midiex.evaluation.seam import joined
from midiex.extend import Model, Passage, load
from midiex.form_plan import letters
from midiex.plots import Beside, clock, piano_roll
from midiex.render import RenderConfig, Renderer

GALLERY = Path(__file__).resolve().parents[1] / "docs" / "gallery"
PAGE = "README.md"
TITLE = "# Gallery of continuations"  # by which a page of this script is known
BEFORE_S, AFTER_S = 15.0, 75.0  # of the original and of the new music, as audio
LIMIT_BYTES = 1_000_000  # of an audio file
QUALITY = RenderConfig(sample_rate=22050)  # 90 s are 0.7 to 0.9 MB
FADE_IN_S, FADE_OUT_S = 0.1, 0.5
FIGURES = {"dens_cv": "density CV", "contrast": "contrast", "returns_5": "returns by half"}  # that are told


@dataclass(frozen=True)
class Entry:
    """One song of the page; `heard_s` is the span of the result that the audio file holds."""

    name: str  # of its files
    one: Cut
    passage: Passage
    heard_s: tuple[float, float] | None = None
    facts: str = ""


def chosen(folders: list[Path], splits: Path | None, most: int, prompt_s: float, seconds: float) -> list[Cut]:
    """The songs that take part, cut, in the order of the page. Raises BadInput where no folder has any file."""
    groups: dict[tuple[str, str], str] = {}
    queues = {source: list(paths) for source, paths in songs_of(folders, splits, "test").items()}
    if splits:
        with splits.open(newline="", encoding="utf-8") as file:
            groups = {(row["source"], row["file"]): row.get("group") or row["file"] for row in csv.DictReader(file)}
    found: list[Cut] = []
    used: set[tuple[str, str]] = set()
    while len(found) < most and any(queues.values()):
        for source, queue in queues.items():
            while queue and len(found) < most:
                path = queue.pop(0)
                group = source, groups.get((source, path.name), path.name)
                if group in used or (one := cut(source, path, prompt_s, seconds)) is None:
                    continue
                used.add(group)
                found.append(one)
                break
    return found


def cut(source: str, path: Path, prompt_s: float, seconds: float) -> Cut | None:
    try:
        return form_study.cut(source, score.read(path), prompt_s, seconds)
    except MidiexError:
        return None


def started(songs: list[Cut], seed: int, model: Model) -> tuple[list[Entry], list[str]]:
    """The continuations to write, and the songs that cannot be continued, each with the reason."""
    entries: list[Entry] = []
    refused: list[str] = []
    for number, one in enumerate(songs, 1):
        try:
            passage = writers.begun(one.song, one.seam_bar, one.end_s, model, seed)
        except MidiexError as error:
            reason = str(error).replace(str(one.song.path), one.song.path.name)
            refused.append(f"{one.source}, {_code(one.song.path.name)}: {reason}")
        else:
            entries.append(Entry(f"{number:02d}_{one.source}", one, passage))
    return entries, refused


def pictures(entry: Entry, midi: Path, itself: score.Song, form: list[dict[str, Any]], folder: Path) -> None:
    """Two piano rolls of one size, span and set of colours: the continuation `midi` as `midiex extend --plot` draws it,
    and the song itself, of the given form."""
    passage, stem, lines = entry.passage, entry.one.song.path.stem, itself.grid.seconds.tolist()
    until_s = max(passage.end_s, itself.length_s)
    borders, new_s = [chunk.start_s for chunk in passage.written], [(passage.start_s, passage.end_s)]
    bars_s, planned = passage.line.grid.seconds.tolist(), provenance.sections_s(score.read(midi))
    beside = Beside(itself.path, until_s)
    piano_roll(midi, folder / f"{entry.name}.png", new_s, borders, f"Continued: {stem}", bars_s, planned, beside)
    parts = [(lines[part["bars"][0] - 1], lines[part["bars"][1]], part["section"], "") for part in form]
    beside = Beside(midi, until_s, passage.start_s)
    piano_roll(itself.path, folder / own_png(entry), (), (), f"The song: {stem}", lines, parts, beside)


def own_png(entry: Entry) -> str:
    return f"{entry.name}_own.png"


def facts(one: Cut, passage: Passage, told: dict[str, Any]) -> str:
    """Key, bars, form and figures of form in a line; `told` is what `describe` tells of the song."""
    figures = form_study.figures(one, {"new": writers.so_far(passage), "own": joined(one.before, one.truth)})
    first, count = passage.line.before, passage.line.new
    form = f"form of the song {_code(letters([part['section'] for part in told['form']]))}"
    if plan := passage.form:
        form += f", of the new music {_code(plan.form)} after {_code(plan.song_form)}"
    shown = [f"{name} {figures['new'][key]:.2f} / {figures['own'][key]:.2f}" for key, name in FIGURES.items()]
    return (
        f"{told['key'] or 'No key'}; bars 1 to {first} given, {first + 1} to {first + count} new "
        f"({clock(passage.start_s)} to {clock(passage.end_s)}); {form}; {', '.join(shown)}."
    )


def excerpt(renderer: Renderer, midi: Path, ogg: Path, seam_s: float) -> tuple[float, float]:
    """Writes the music around `seam_s`, cut from the whole song's sound; ends it earlier where the file would be too
    large. Returns the span that is heard."""
    wav, rate = ogg.with_suffix(".wav"), renderer.config.sample_rate
    renderer.render(midi, wav)
    samples, _ = soundfile.read(wav, dtype="float32")
    wav.unlink()
    first, last = round(max(0.0, seam_s - BEFORE_S) * rate), round((seam_s + AFTER_S) * rate)
    samples = samples[first:last]
    if first:
        fade = round(FADE_IN_S * rate)
        samples[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)[:, None]
    while True:
        # midiex's own encoder, since it writes the same bytes every time and fades out; the level is already right.
        blocks = np.array_split(samples, -(-len(samples) // renderer.config.block_frames))
        audiofile.write(ogg, blocks, len(samples), rate, 1.0, round(FADE_OUT_S * rate))
        size = ogg.stat().st_size
        if size <= LIMIT_BYTES:
            return first / rate, (first + len(samples)) / rate
        samples = samples[: int(len(samples) * 0.98 * LIMIT_BYTES / size)]


def make(entries: list[Entry], folder: Path, audio: int) -> list[Entry]:
    """Writes each song's pictures, and of the first `audio` the sound, into `folder`; the entries know of it then."""
    renderer = Renderer(config=QUALITY) if audio else None  # what is missing shows before any work
    made: list[Entry] = []
    total_s = sum(entry.passage.end_s - entry.passage.start_s for entry in entries)
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=round(total_s), unit="s", leave=False, mininterval=5) as bar,
    ):
        midi, own = Path(scratch) / "song.mid", Path(scratch) / "own.mid"
        for entry in entries:
            passage, heard = entry.passage, None
            bar.set_description(entry.name)
            for chunk in passage.chunks():
                bar.update(round(chunk.end_s) - round(chunk.start_s))
            passage.save(midi)
            itself = score.read(save_prompt(entry.one.song, entry.one.last_bar, own))
            told = describe(itself)
            pictures(entry, midi, itself, told["form"], folder)
            if renderer and len(made) < audio:
                heard = excerpt(renderer, midi, folder / f"{entry.name}.ogg", passage.start_s)
            made.append(replace(entry, heard_s=heard, facts=facts(entry.one, passage, told)))
    if renderer:
        renderer.close()
    return made


def page(rule: str, model_name: str, model: Model, entries: list[Entry], refused: list[str]) -> str:
    """The page in Markdown."""
    chosen = asdict(model.config.generate)
    settings = ", ".join(f"{name} {v:g}" if isinstance(v, float) else f"{name} {v}" for name, v in chosen.items())
    parameters = sum(weight.numel() for weight in model.network.parameters())
    facts = [
        f"- Model: {model_name}, {parameters:,} parameters, weights {model.fingerprint}",
        f"- Settings: {settings}",
    ]
    if refused:
        facts.append(f"- Their turn came, but they cannot be continued: {'; '.join(refused)}")
    blocks = [
        TITLE,
        rule,
        "\n".join(facts),
        "Of each song there are two pictures of the same span, with the same colours: above what midiex made of its "
        "beginning, new music on tinted paper; below the song itself. The dark line is the seam in both. Letters name "
        "sections; each picture has its own, since midiex could not know what comes after the seam. Figures of form "
        "(`midiex/evaluation/form.py`) are those of the new music and, after the stroke, of the song itself in the "
        "same seconds: how much the number of notes varies, how unlike its least alike parts are, and which share of "
        "its blocks of four bars stood at least by half somewhere before.",
    ]
    for number, entry in enumerate(entries, 1):
        blocks += [f"## {number}. {entry.one.source}, {_code(entry.one.song.path.name)}", _told(entry)]
        blocks.append(
            f"![Piano roll of song {number} and its continuation]({entry.name}.png)\n"
            f"![Piano roll of song {number} as it is]({own_png(entry)})"
        )
    return "\n\n".join(blocks) + "\n"


def _told(entry: Entry) -> str:
    """What was done with one song, in a line or two."""
    passage, text = entry.passage, entry.facts
    if entry.heard_s is None:
        return text
    first_s, last_s = entry.heard_s
    early = last_s < min(passage.start_s + AFTER_S, passage.end_s) - 0.01
    why = f", ended early to keep the file below {LIMIT_BYTES / 1e6:g} MB" if early else ""
    return (
        f"{text}\n[Listen]({entry.name}.ogg): {clock(first_s)} to {clock(last_s)} of the result{why}; the new music "
        f"begins {passage.start_s - first_s:.1f} s into the recording."
    )


def told_rule(args: argparse.Namespace) -> str:
    """How the songs were chosen."""
    held_out = " of the test split, which no training saw, one of each group of its table," if args.splits else ""
    return (
        f"Nothing here is picked: the first {args.songs} songs{held_out} that last {LONG_S:g} s or more, each cut at "
        f"the bar line nearest {args.prompt_s:g} s and continued once, from a file of what is before it alone, to "
        f"{args.seconds:g} s or where the song ends, up to a bar longer, with seed {args.seed} and the model's own "
        "settings. The sources come in turn by name, passed by when they have no such song left, and the files of each "
        f"in the order of their names' CRC-32. Sources: {', '.join(folder.name for folder in args.folders)}."
    )


def publish(made: Path, out: Path) -> None:
    """Moves a finished gallery to its place, the page last; of an earlier one nothing stays."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / PAGE).exists():
        for path in (*out.glob("[0-9][0-9]_*.png"), *out.glob("[0-9][0-9]_*.ogg")):
            path.unlink()
    for path in sorted(made.iterdir(), key=lambda path: (path.name == PAGE, path.name)):
        os.replace(path, out / path.name)


def _code(name: str) -> str:
    return "`" + name.replace("`", "'") + "`"


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, default=GALLERY)
    parser.add_argument("--songs", type=int, default=10)
    parser.add_argument("--prompt-s", type=float, default=FORM_PROMPTS_S[0])
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audio", type=int, default=3, help="of so many songs, the first, there is audio")
    args = parser.parse_args(given)
    args.folders = sorted((folder.resolve() for folder in args.folders), key=lambda folder: folder.name)
    old = args.out / PAGE
    if old.exists() and not old.read_bytes().startswith(TITLE.encode()):
        parser.error(f"{old} is not a gallery's page; give --out a folder of its own")
    model = load(args.model)
    try:
        songs = chosen(args.folders, args.splits, args.songs, args.prompt_s, args.seconds)
    except BadInput as error:
        parser.error(str(error))
    entries, refused = started(songs, args.seed, model)
    if not entries:
        parser.error(f"no song of {LONG_S:g} s or more in these folders can be continued")
    model_name = Path(args.model).resolve().name if args.model else "small"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.resolve().parent, prefix=".gallery") as folder:
        made = make(entries, Path(folder), args.audio)
        text = page(told_rule(args), model_name, model, made, refused)
        (Path(folder) / PAGE).write_text(text, encoding="utf-8")
        publish(Path(folder), args.out)
    print(f"{old}: {len(made)} songs of {len({entry.one.source for entry in made})} sources")


if __name__ == "__main__":
    main()
