"""Makes the gallery: songs nobody trained on, continued, each with its picture and the first of them as audio.

    python benchmarks/gallery.py FOLDER… [--splits splits.csv] [--model FOLDER] [--out docs/gallery]
                                 [--songs 10] [--seconds 120] [--seed 0] [--audio 3]

Each FOLDER is a source; with --splits only its test songs are used. Songs of 15 s to two thirds of --seconds take part:
the sources in turn by name, the files of each in the order of their names' CRC-32, so that nobody chooses. Same songs,
model and seed on the same machine: same bytes. The files appear in --out together, once all are made.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from continuations import songs_of
from tqdm import tqdm

from midiex import audiofile, score
from midiex.errors import MidiexError
from midiex.extend import Model, Passage, load, start
from midiex.plots import clock, piano_roll
from midiex.render import RenderConfig, Renderer

GALLERY = Path(__file__).resolve().parents[1] / "docs" / "gallery"
PAGE = "README.md"
TITLE = "# Gallery of continuations"  # by which a page of this script is known
BEFORE_S, AFTER_S = 15.0, 75.0  # of the original and of the new music, as audio
LIMIT_BYTES = 1_000_000  # of an audio file
QUALITY = RenderConfig(sample_rate=22050)  # 90 s are 0.7 to 0.9 MB
FADE_IN_S, FADE_OUT_S = 0.1, 0.5


@dataclass(frozen=True)
class Entry:
    """One song of the page; `heard_s` is the span of the result that the audio file holds."""

    name: str  # of its files
    source: str
    passage: Passage
    heard_s: tuple[float, float] | None = None


def started(
    songs: list[tuple[str, score.Song]], seconds: float, seed: int, model: Model
) -> tuple[list[Entry], list[str]]:
    """The continuations to write, and the songs that cannot be continued, each with the reason."""
    entries: list[Entry] = []
    refused: list[str] = []
    for number, (source, song) in enumerate(songs, 1):
        try:
            passage = start(song.path, seconds, model=model, seed=seed)
        except MidiexError as error:
            reason = str(error).replace(str(song.path), song.path.name)
            refused.append(f"{source}, {_code(song.path.name)}: {reason}")
        else:
            entries.append(Entry(f"{number:02d}_{source}", source, passage))
    return entries, refused


def picture(passage: Passage, midi: Path, png: Path) -> None:
    """The piano roll that `midiex extend --plot` draws."""
    borders, bars = [chunk.start_s for chunk in passage.written], passage.line.grid.seconds.tolist()
    piano_roll(midi, png, [(passage.start_s, passage.end_s)], borders, passage.song.path.stem, bars)


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
    """Writes each song's picture, and of the first `audio` the sound, into `folder`; the entries know of it then."""
    renderer = Renderer(config=QUALITY) if audio else None  # what is missing shows before any work
    made: list[Entry] = []
    total_s = sum(entry.passage.end_s - entry.passage.start_s for entry in entries)
    with (
        tempfile.TemporaryDirectory() as scratch,
        tqdm(total=round(total_s), unit="s", leave=False, mininterval=5) as bar,
    ):
        midi = Path(scratch) / "song.mid"
        for entry in entries:
            passage, heard = entry.passage, None
            bar.set_description(entry.name)
            for chunk in passage.chunks():
                bar.update(round(chunk.end_s) - round(chunk.start_s))
            passage.save(midi)
            picture(passage, midi, folder / f"{entry.name}.png")
            if renderer and len(made) < audio:
                heard = excerpt(renderer, midi, folder / f"{entry.name}.ogg", passage.start_s)
            made.append(replace(entry, heard_s=heard))
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
        "In the pictures the song stands on white and what midiex wrote on tinted paper; the dark line between them is "
        "the seam. Every track has its colour.",
    ]
    for number, entry in enumerate(entries, 1):
        blocks += [f"## {number}. {entry.source}, {_code(entry.passage.song.path.name)}", _told(entry)]
        blocks.append(f"![Piano roll of song {number} and its continuation]({entry.name}.png)")
    return "\n\n".join(blocks) + "\n"


def _told(entry: Entry) -> str:
    """What was done with one song, in a line or two."""
    passage = entry.passage
    text = (
        f"The original lasts {passage.song.length_s:.1f} s; the new music begins at {passage.start_s:.1f} s "
        f"({passage.why_here}) and ends at {passage.end_s:.1f} s; seed {passage.seed}."
    )
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
    held_out = "songs of the test split, which no training saw," if args.splits else "songs"
    return (
        f"Nothing here is picked: the first {args.songs} {held_out} that last 15 to {args.seconds * 2 / 3:g} s, each "
        f"continued once to {args.seconds:g} s with seed {args.seed} and the model's own settings. The sources come in "
        "turn by name, passed by when they have no such song left, and the files of each in the order of their names' "
        f"CRC-32. Sources: {', '.join(folder.name for folder in args.folders)}."
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
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audio", type=int, default=3, help="of so many songs, the first, there is audio")
    args = parser.parse_args(given)
    args.folders = sorted((folder.resolve() for folder in args.folders), key=lambda folder: folder.name)
    old = args.out / PAGE
    if old.exists() and not old.read_bytes().startswith(TITLE.encode()):
        parser.error(f"{old} is not a gallery's page; give --out a folder of its own")
    model = load(args.model)
    songs = songs_of(args.folders, args.splits, args.songs, args.seconds * 2 / 3)
    entries, refused = started(songs, args.seconds, args.seed, model)
    if not entries:
        parser.error(f"no song of 15 to {args.seconds * 2 / 3:g} s in these folders can be continued")
    model_name = Path(args.model).resolve().name if args.model else "small"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.resolve().parent, prefix=".gallery") as folder:
        made = make(entries, Path(folder), args.audio)
        text = page(told_rule(args), model_name, model, made, refused)
        (Path(folder) / PAGE).write_text(text, encoding="utf-8")
        publish(Path(folder), args.out)
    print(f"{old}: {len(made)} songs of {len({entry.source for entry in made})} sources")


if __name__ == "__main__":
    main()
