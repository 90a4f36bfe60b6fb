"""docs/why-encoder-decoder.md and its pictures, from what was measured. Measures nothing; what was not measured has no
row, and every sentence with a figure in it is made from the figures."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS, table

from midiex import plots

from .curves import REMI_DROPS, Curve
from .sizes import NETWORKS
from .summary import RIVAL, TITLES, Group, Rows, by_torchs_kernels, ends, groups, race_rows, short, spread, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {
    "ours": (plots.NEW, "o"), "lstm": (plots.TRACKS[0], "s"), "lstm_attention": (plots.TRACKS[4], "D"),
    "gru": (plots.TRACKS[2], "^"), "decoder_only": (plots.TRACKS[3], "v"),
}  # fmt: skip
TICKS_MB = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]


def results(name: str) -> dict[str, Any]:
    """A file of figures, empty where it is missing."""
    path = RESULTS / f"architectures_{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def draw(docs: Path) -> Path:
    """Writes the page and its pictures into a folder."""
    trained = [Curve(**one) for one in results("curves").get("curves", [])]
    compared = groups(trained)
    pictures = docs / "why-encoder-decoder"
    pictures.mkdir(parents=True, exist_ok=True)
    speed, memory = results("speed").get("rows", []), results("memory").get("rows", [])
    judged, generation = results("judged").get("rows", []), results("generation").get("rows", [])
    parts = [HEAD, verdict(compared, speed, memory, generation), _method(trained, results("search"))]
    told: set[tuple[str, bool]] = set()
    for group in compared:
        kind = group.scale, group.alone
        if kind in told:
            parts += [f"### Again on another machine: {short(group.cpu)}\n"]
        else:
            target = pictures / f"learning_{'alone_' if group.alone else ''}{group.scale}.png"
            _learning(group, target)
            title = f"## Learning, about {group.scale[:-1]} M parameters ({short(group.cpu)})\n"
            parts += [ALONE if group.alone else title, _picture(target, docs)]
        told.add(kind)
        parts += [table(ends(group.whole, speed, group.scale)), _race(group, speed)]
    if speed:
        parts += ["## Speed of training\n", table(speed), by_torchs_kernels(speed)]
    if memory:
        target = pictures / "memory.png"
        _memory(memory, target)
        parts += [MEMORY, _picture(target, docs), table(spread(memory))]
    if judged:
        parts += [JUDGED, table(judged)]
    if generation:
        parts += [GENERATION, table(generation)]
    tokens = [one for one in trained if one.network not in NETWORKS]
    if tokens:
        parts += [REMI, table(ends(tokens, speed, "3M")), _without_what_remi_drops(compared, tokens)]
    page = docs / "why-encoder-decoder.md"
    blocks = [block for part in parts for block in part.strip("\n").split("\n\n") if block]
    page.write_text("\n\n".join(map(_wrapped, blocks)) + "\n")
    return page


def _wrapped(block: str) -> str:
    """A paragraph, or the points of a list, in lines of like length; headings, tables and pictures as they are."""
    if block[0] in "#|!":
        return block
    if block[0] == "-":
        return "\n".join(textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False)
                         for line in block.splitlines())  # fmt: skip
    return textwrap.fill(" ".join(block.split()), 120, break_on_hyphens=False)


HEAD = """
# Why an encoder-decoder transformer

midiex began with an LSTM sequence-to-sequence network that took too long to train and exhausted the machine. Here
that is put to the test: networks of five kinds, as large as each other, learn the same music in the same way, and
what each takes and gives is measured. `python benchmarks/architectures.py` trains and measures, `… page` writes this
page out of benchmarks/results/architectures_*.json; all sentences with figures on it are made from them.
"""
ALONE = """
## The networks alone

Echoes (pointers to where the song did the like before) and habits (what it did so far in like places) tell every
network much about the past, as they do in midiex. Here they are taken away, so that the network must remember by
itself.
"""
MEMORY = """
## Memory in training

The most that two steps on one song take above the process that is ready to make them, float32, one thread, by the
chunks of context before the last chunk. "last": only the chunk after the context is written; "all": every chunk of
the stretch is, as in training. Nothing is recomputed to save memory.
"""
JUDGED = """
## What their music is worth

Validation songs. Nats a note over eight windows a source; the true next chunk among four; overlap of a minute written
(one candidate a chunk, no ranking, nothing brought back, equal sampling for all) with the song's own next minute, as
a share of what two real minutes have. Intervals are 95 % bootstraps over songs.
"""
GENERATION = """
## Writing

One stream through midiex's own sampler, one thread, torch, other work on the other core, so that notes a second of the
processor tell more than those of the clock; memory is what the process takes above a loaded network.
"""
REMI = """
## Other tokens

Decoder-only over the tokens of MidiTok's REMI, with and without byte-pair encoding, on the same songs. A REMI song
has no micro-timing and coarser lengths, so that its nats a note are not the same quantity: they leave out what REMI
drops.
"""


def _method(found: Sequence[Curve], search: dict[str, Any]) -> str:
    total_s = sum(60 * one.minutes for one in found)
    searched = search.get("networks", {})
    tries = [len(one["tried"]) for one in searched.values()]
    tried_s = sum(60 * one["minutes"] * len(one["tried"]) for one in searched.values())
    rows = [{"network": TITLES[name], **one["settings"], "lr": f"{one['settings']['lr']:g}", "runs": len(one["tried"])}
            for name, one in searched.items()]  # fmt: skip
    machine = search.get("machine", {})
    return f"""
## Method

The networks differ in their trunk only (benchmarks/rivals/networks.py): note rows, embeddings, conditions, echoes,
heads and habits, the split of songs, augmentation, batches, schedule (warm up, hold, fall), moving average and
validation are midiex's own. Encoders read and decoders write chunks of about ten seconds out of windows of six.
Recurrent networks have two layers on each side, packed sequences, orthogonal starts, open forget gates, norms around
them, and backward passes of our own, half as long as torch's on a CPU, whose recurrent gradients grow step by step.

Settings were searched for each network alike, at 3 M parameters: optimizer (Muon for plain matrices or AdamW for all)
by batch size, then the learning rate, then clipping, and for recurrent ones truncated back-propagation:
{min(tries, default=0)} to {max(tries, default=0)} runs of two minutes of a core. Sizes of 12 M take them over. A
training's budget is time of a core, one thread, two side by side. The search was made on
{short(machine.get("cpu", ""))}, torch {machine.get("torch", "")}; a time is compared with those of its own machine
alone. All is float32. Compute in all: {(total_s + tried_s) / 3600:.1f} core hours, of which {tried_s / 3600:.1f} were
the search's; no GPU.

{table(rows) if rows else ""}
"""


def _learning(group: Group, target: Path) -> None:
    """Nats a note by core seconds and by notes; a line a seed."""
    figure = plots.paper(f"Learning, {group.title}")
    for left, name, unit in ((0.06, "core_s", "minutes of a core"), (0.55, "notes", "million notes")):
        axes = figure.add_axes((left, 0.12, 0.43, 0.74))
        for kind in TITLES:
            for number, one in enumerate(c for c in group.whole if c.network == kind):
                colour, marker = _STYLES[kind]
                at = np.array(getattr(one, name)) / (60 if name == "core_s" else 1e6)
                axes.plot(at, one.nats, color=colour, marker=marker, markersize=4, linewidth=1.4,
                          label=TITLES[kind] if number == 0 else None)  # fmt: skip
        _plain(axes, f"validation, nats a note, by {unit}")
        nats = [value for one in group.whole for value in one.nats]
        axes.set_ylim(min(nats) - 0.05, max(nats) + 0.05)
    axes.legend(fontsize=9, frameon=False)
    plots.save(figure, target)


def _memory(rows: Rows, target: Path) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = plots.paper("Memory of a training step by context")
    measured = {row["written"] for row in rows}
    for left, written in ((0.06, "all"), (0.55, "last")):
        if written not in measured:
            continue
        axes = figure.add_axes((left, 0.12, 0.43, 0.74))
        for kind, (colour, marker) in _STYLES.items():
            own = [r for r in rows if r["network"] == kind and r["written"] == written and not isinstance(r["MB"], str)]
            axes.plot([r["chunks of context"] for r in own], [r["MB"] for r in own], color=colour, marker=marker,
                      label=TITLES[kind])  # fmt: skip
        chunks = sorted({row["chunks of context"] for row in rows})
        for axis, scaled, ticks in ((axes.xaxis, axes.set_xscale, chunks), (axes.yaxis, axes.set_yscale, TICKS_MB)):
            scaled("log")
            axis.set_minor_locator(NullLocator())
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(ScalarFormatter())
        _plain(axes, f"MB by chunks of context, {written} written")
    axes.legend(fontsize=9, frameon=False)
    plots.save(figure, target)


def _plain(axes: Axes, label: str) -> None:
    axes.grid(color=plots.PALE, linewidth=0.8)
    axes.set_xlabel(label, fontsize=9, color=plots.INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _race(group: Group, speed: Rows) -> str:
    """How soon each network was where the rival ended."""
    rows = race_rows(group.whole, speed, group.scale)
    head = (
        f"What each needed to be where the {TITLES[RIVAL]} was at its end, as a share of what that took (its learning "
        "rate had fallen by then, that of the others had not); wall time is by the notes, and by the most notes a "
        "second that a network learned from, with one thread or two, our kernels or torch's (see Speed of training):"
    )
    return f"{head}\n\n{table(rows)}" if rows else ""


def _without_what_remi_drops(compared: Sequence[Group], tokens: Sequence[Curve]) -> str:
    """midiex's note rows, counted as REMI is, where it was trained."""
    rows = [
        {"network": TITLES[one.network], "echoes and habits": "without" if one.alone else "with",
         "nats a note at the end": one.as_remi, "million notes": f"{one.notes[-1] / 1e6:.2f}"}
        for group in compared for one in group.whole
        if one.as_remi is not None and one.scale == "3M" and one.cpu in {token.cpu for token in tokens}
    ]  # fmt: skip
    head = f"midiex's note rows without {' and '.join(REMI_DROPS)}, trained on the same machine:"
    return f"{head}\n\n{table(rows)}" if rows else ""


def _picture(target: Path, docs: Path) -> str:
    return f"![{target.stem.replace('_', ' ')}]({target.relative_to(docs)})"
