"""Finds the files that ship with midiex: soundfonts, configs, weights, whether installed or in a checkout."""

from __future__ import annotations

from pathlib import Path

from .errors import MissingPart

_PACKAGE = Path(__file__).resolve().parent


def asset_dir(kind: str) -> Path:
    """Folder of one kind of asset ("soundfonts", "configs" or "weights").

    A wheel carries the folder inside the package; a checkout (also `pip install -e .`) has it beside the package.

    Raises MissingPart when neither exists.
    """
    for folder in (_PACKAGE / kind, _PACKAGE.parent / kind):
        if folder.is_dir():
            return folder
    raise MissingPart(
        f"midiex's own folder '{kind}' is missing from {_PACKAGE}; "
        "reinstall midiex with `pip install --force-reinstall .`."
    )
