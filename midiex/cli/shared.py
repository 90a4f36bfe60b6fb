"""What the commands share: checks of files before any work, and a progress bar over seconds of music."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from ..errors import BadInput


def file_argument(name: str, **options: Any) -> Callable:
    return click.argument(name, type=click.Path(path_type=Path), **options)


def check_targets(source: Path, *targets: Path) -> None:
    """Refuse, before any work, an input that is not there and outputs that cannot be written or would overwrite it."""
    import os

    if not source.exists():
        raise BadInput(f"There is no file {source}; check its name and folder.")
    for target in targets:
        if target.is_dir():
            raise BadInput(f"{target} is a folder; name the file to write.")
        if not target.parent.is_dir():
            raise BadInput(f"There is no folder {target.parent} to write {target.name} into; make it first.")
        if not os.access(target.parent, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
            raise BadInput(f"{target} cannot be written; choose a place you may write to.")
        if target.exists() and target.samefile(source):
            raise BadInput(f"{target} is the input itself, which midiex never changes; choose another name.")


def check_suffix(target: Path | None, known: Collection[str]) -> None:
    if target and target.suffix.lower() not in known:
        raise BadInput(f"{target.name} does not end in a kind of file to write there; use one of {', '.join(known)}.")


class MusicBar:
    """Progress in seconds of music, with the speed as a multiple of real time."""

    def __init__(self, total_s: float, label: str, quiet: bool):
        from tqdm import tqdm

        self.total_s, self.done_s = round(total_s), 0.0
        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total} s of music, {rate_noinv_fmt}, {remaining} left"
        hidden = True if quiet else None  # None: hidden where nobody watches
        self.bar = tqdm(
            total=self.total_s, desc=label, disable=hidden, leave=False, bar_format=form, unit="x real time"
        )

    def __enter__(self) -> MusicBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, seconds: float) -> None:
        self.to(self.done_s + seconds)

    def to(self, seconds: float) -> None:
        seconds = min(seconds, self.total_s)
        self.bar.update(max(0.0, seconds - self.done_s))
        self.done_s = max(self.done_s, seconds)
