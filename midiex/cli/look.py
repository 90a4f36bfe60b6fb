"""Commands that show and play MIDI files: render, plot, info, doctor."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import MusicBar, check_suffix, check_targets, file_argument

if TYPE_CHECKING:
    from ..render import RenderInfo


@click.command()
@file_argument("midi")
@file_argument("audio", required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="AUDIO, or for a folder the folder to write into.")
@click.option("--stems", is_flag=True, help="Each track as a file of its own as well, in the folder AUDIO_stems.")
@click.option("--format", "kind", help="wav, flac, ogg or mp3, where AUDIO does not say it.  [default: ogg]")
@click.option("--jobs", type=click.IntRange(1), help="Files, or stems, at a time.  [default: one for each core]")
@click.option(
    "--soundfont",
    type=click.Path(path_type=Path),
    help="Another .sf2 or .sf3.  [default: $MIDIEX_SOUNDFONT or the one that ships]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def render(
    midi: Path,
    audio: Path | None,
    out: Path | None,
    stems: bool,
    kind: str | None,
    jobs: int | None,
    soundfont: Path | None,
    as_json: bool,
) -> None:
    """Play MIDI through FluidSynth into AUDIO (.wav, .flac, .ogg, .mp3; default: MIDI's name with .ogg).

    Stems have the mix's length and level: together they are the mix. With a folder for MIDI this is `midiex convert`.

    \b
    midiex render song.mid
    midiex render song.mid song.flac --soundfont grand_piano.sf2
    midiex render song.mid --stems                          song.ogg, song_stems/01_Piano.ogg, 02_Bass.ogg, ...
    midiex render my_songs -o my_audio --format flac
    """
    suffix = f".{(kind or 'ogg').lower().lstrip('.')}"
    if audio and out:
        raise click.UsageError("AUDIO and --out both say where to write; give one of them.")
    audio = audio or out
    if midi.is_dir():
        from ..audiofile import FORMATS
        from .many import to_audio

        check_suffix(Path(f"audio{suffix}"), FORMATS)
        to_audio((str(midi),), str(audio or midi), suffix, stems, soundfont, jobs=jobs, as_json=as_json)
    else:
        _render_file(midi, audio or midi.with_suffix(suffix), soundfont, jobs, stems, as_json)


def _render_file(midi: Path, audio: Path, soundfont: Path | None, jobs: int | None, stems: bool, as_json: bool) -> None:
    import os

    from ..render import FORMATS
    from ..render import render as render_audio
    from ..score import read

    check_targets(midi, audio)
    check_suffix(audio, FORMATS)
    song = read(midi)
    passes = 1 + len({(voice.track, voice.channel) for voice in song.voices}) * stems
    with MusicBar(song.length_s * passes, audio.name, quiet=as_json) as bar:
        info = render_audio(midi, audio, soundfont, progress=bar.to, stems=stems, jobs=jobs or os.cpu_count() or 1)
    if as_json:
        click.echo(json.dumps(_told(info), indent=2))
        return
    click.echo(f"{audio}: {info.seconds:.1f} s at {info.loudness_lufs:.1f} LUFS")
    for path in info.stems:
        click.echo(f"  {path}")


def _told(info: RenderInfo) -> dict[str, Any]:
    """What was rendered, ready for JSON."""
    told = {
        "audio": str(info.path),
        "seconds": info.seconds,
        "loudness_lufs": info.loudness_lufs if math.isfinite(info.loudness_lufs) else None,  # silence has none
        "peak": info.peak,
        "wall_s": info.wall_s,
    }
    return told | ({"stems": [str(path) for path in info.stems]} if info.stems else {})


@click.command()
@file_argument("midi")
@file_argument("png", required=False)
@click.option("--structure", "kind", flag_value="structure", help="Likeness of every bar to every other, and by lag.")
@click.option("--mood", "kind", flag_value="mood", help="Arousal and valence over time, with their honest error.")
def plot(midi: Path, png: Path | None, kind: str | None) -> None:
    """Draw MIDI to PNG (default: MIDI's name with .png): a piano roll, its form or its mood.

    Music that midiex wrote is told apart from the rest.

    \b
    midiex plot song_300s.mid
    midiex plot song_300s.mid form.png --structure
    midiex plot song_300s.mid mood.png --mood
    """
    from .. import plots, provenance, structure
    from ..describe import form_of
    from ..score import read

    png = png or midi.with_name(f"{midi.stem}{'_' + kind if kind else ''}.png")
    check_targets(midi, png)
    check_suffix(png, (".png",))
    song = read(midi)
    new_s = provenance.spans_s(song)
    if kind == "structure":
        structure.structure_plot(midi, png, new_s, midi.stem)
    elif kind == "mood":
        structure.mood_plot(midi, png, new_s, midi.stem)
    else:
        grid = song.grid
        borders = [
            float(grid.seconds[grid.bar_at(note.tick + offset)])
            for note in provenance.notes_in(song)
            for offset, _, _ in note.chunks
        ]
        sections = provenance.sections_s(song)
        if not new_s:  # nobody has said, but it can be told
            sections = [
                (float(grid.seconds[part["bars"][0] - 1]), float(grid.seconds[part["bars"][1]]), part["section"], "")
                for part in form_of(song)
            ]
        plots.piano_roll(midi, png, new_s, borders, midi.stem, grid.seconds.tolist(), sections)
    click.echo(f"{png}: {song.length_s:.1f} s, {len(song.grid)} bars")


@click.command()
@file_argument("song")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(song: Path, as_json: bool) -> None:
    """Tell what is in SONG: length, bars, tempo and meter map, instruments, key, form, chunks, mood.

    \b
    midiex info song.mid
    midiex info song.mid --json
    """
    from ..describe import describe
    from ..score import read

    found = describe(read(song))
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_info_lines(found)))


def _info_lines(found: dict) -> list[str]:
    minutes, seconds = divmod(found["length_s"], 60)
    tempi, meters, mood = found["tempo_bpm"], found["meter"], found["mood"]
    ending = "none that could be told"
    if found["ending"]:
        ending = f"from bar {found['ending']['bar']} ({', '.join(found['ending']['kinds'])})"
    lines = [
        f"{found['file']}: {int(minutes)}:{seconds:04.1f}, {found['bars']} bars, {found['notes']} notes, "
        f"MIDI type {found['type']}",
        f"tempo   {_map([(t['at_s'], format(t['bpm'], 'g') + ' bpm') for t in tempi])}",
        f"meter   {_map([(m['at_s'], m['meter']) for m in meters])}",
        f"key     {found['key'] or 'none (drums only)'} (fit {found['key_fit']:.2f})",
        f"mood    arousal {mood['arousal']:+.1f}, valence {mood['valence']:+.1f} ({mood['note']})",
        f"form    {_form(found['form'])}",
        f"ending  {ending}",
        f"chunks  {len(found['chunks'])} of {', '.join(map(str, sorted({c['bars'] for c in found['chunks']})))} bars",
    ]
    for voice in found["instruments"]:
        name = f" '{voice['track_name']}'" if voice["track_name"] else ""
        lines.append(
            f"  track {voice['track']}{name}, channel {voice['channel']}: {voice['instrument']}, "
            f"{voice['notes']} notes, {voice['lowest']} to {voice['highest']}"
        )
    return lines


def _form(form: list[dict], most: int = 24) -> str:
    """A 1-8, B 9-24 and so on."""
    shown = ", ".join(f"{part['section']} {part['bars'][0]}-{part['bars'][1]}" for part in form[:most])
    return (shown or "none") + (f", and {len(form) - most} more sections" if len(form) > most else "")


def _map(points: list[tuple[float, str]], most: int = 6) -> str:
    shown = ", ".join(what if at == 0 else f"{what} from {at:.1f} s" for at, what in points[:most])
    return shown + (f", and {len(points) - most} more changes" if len(points) > most else "")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor(as_json: bool) -> None:
    """Check that all midiex needs is there, and say how to mend what is not.

    \b
    midiex doctor
    """
    from dataclasses import asdict

    from ..doctor import check

    checks = check()
    if as_json:
        click.echo(json.dumps([asdict(c) for c in checks], indent=2))
    else:
        for one in checks:
            click.echo(
                f"{'ok ' if one.ok else 'BAD'}  {one.name}: {one.found}" + ("" if one.ok else f"\n     {one.mend}")
            )
    if not all(one.ok for one in checks):
        sys.exit(1)
