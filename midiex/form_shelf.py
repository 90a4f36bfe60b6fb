"""A shelf of real forms: how songs go on, as tables of small numbers, and which of them open like a given song.

The shelf ships with midiex; `benchmarks/build_forms.py` makes it. It holds no notes. Knows forms; knows no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as tensors

from .assets import asset_dir
from .errors import BadInput
from .form_facts import PHRASE_FIELDS, Form, empty_fields
from .roles import DRUMS

MOST_PHRASES = 48  # of a form that are kept
FILE_NAME = "forms.safetensors"
_MISSING = -128  # in place of nan
# How each figure of a phrase is stored: as int8, times this.
_SCALES = {
    "bars": 1, "section": 1, "border": 1, "source": 1, "shift": 1, "likeness": 100, "of_role": 100, "harmony": 100,
    "shares": 100, "density": 16, "loudness": 1, "register": 2, "transition": 1,
}  # fmt: skip
_KINDS = {name: values.dtype for name, values in empty_fields(0).items()}
RETURNS = (0.5, 0.8)  # likeness from which a phrase is said to return, and to return nearly as it was
# What counts how much when two openings are compared; figures are divided by their spread on the shelf.
_WEIGHTS = {
    "likeness": 3.0, "half": 2.0, "most": 1.5, "of_role": 0.7, "harmony": 1.0, "latest": 1.5, "sections": 0.5,
    "shares": 0.3, "moves": 1.0, "density": 1.0, "voices": 0.5, "drums": 1.5, "phrase_s": 0.2, "phrase_bars": 0.4,
    "beats": 0.3,
}  # fmt: skip


@dataclass(frozen=True)
class Shelf:
    """Forms, one after another."""

    forms: tuple[Form, ...]

    def __len__(self) -> int:
        return len(self.forms)

    @cached_property
    def _sums(self) -> _Sums:
        return _Sums.of(self.forms)

    def alike(self, form: Form, count: int, ahead: int = 2) -> list[tuple[int, int, float]]:
        """The `count` forms that open most like `form`, nearest first: (number, phrases of it that are its opening,
        distance). Each has at least `ahead` phrases after its opening, unless no form has."""
        if not self.forms:
            return []
        opening = np.minimum(len(form), (0.6 * self._sums.lengths).astype(np.int64)).clip(1)
        theirs = self._sums.profiles(opening)
        own = _Sums.of((form,)).profiles(np.array([max(1, len(form))]))
        spread = np.maximum(theirs.std(0), 0.02)
        distance = np.sqrt((self._sums.weights * ((theirs - own) / spread) ** 2).sum(1))
        distance += 9 * (self._sums.lengths - opening < ahead)
        order = np.argsort(distance, kind="stable")[:count]
        return [(int(i), int(opening[i]), float(distance[i])) for i in order]


@dataclass(frozen=True)
class _Sums:
    """Running sums over the phrases of many forms, from which any opening's profile is read."""

    lengths: np.ndarray  # (forms,)
    sums: np.ndarray  # (forms, phrases + 1, figures)
    header: np.ndarray  # (forms, figures)
    likeness: np.ndarray  # (forms, phrases)
    section: np.ndarray  # (forms, phrases): different sections up to each phrase
    weights: np.ndarray

    @classmethod
    def of(cls, forms: Sequence[Form]) -> _Sums:
        lengths = np.array([len(form) for form in forms])
        most = max(1, int(lengths.max(initial=1)))
        columns = [_columns(form) for form in forms]
        sums = np.zeros((len(forms), most + 1, columns[0].shape[1] if columns else 1))
        likeness, section = np.zeros((len(forms), most)), np.ones((len(forms), most))
        for i, form in enumerate(forms):
            sums[i, 1 : len(form) + 1] = np.cumsum(columns[i], 0)
            likeness[i, : len(form)] = form.likeness
            section[i, : len(form)] = np.maximum.accumulate(form.section) + 1
        header = np.array([_header(form) for form in forms])
        names = [*_COLUMN_NAMES, "density", "latest", "sections", *_HEADER_NAMES]
        weights = np.array([_WEIGHTS[name] for name in names])
        return cls(lengths, sums, header, likeness, section, weights)

    def profiles(self, opening: np.ndarray) -> np.ndarray:
        """Figures (forms, figures) of the first `opening` (forms,) phrases of each form."""
        here = np.arange(len(self.lengths))
        mean = self.sums[here, opening] / opening[:, None]
        spread = np.sqrt(np.maximum(0, mean[:, -1] - mean[:, -2] ** 2))
        latest = (self.likeness[here, opening - 1] + self.likeness[here, (opening - 2).clip(0)]) / 2
        sections = self.section[here, opening - 1] / opening
        return np.column_stack([mean[:, :-2], spread, latest, sections, self.header])


_COLUMN_NAMES = ("likeness", "half", "most", "harmony", *["of_role"] * 4, *["shares"] * 4, *["moves"] * 4)
_HEADER_NAMES = (*["voices"] * 4, "drums", "phrase_s", "phrase_bars", "beats")


def _columns(form: Form) -> np.ndarray:
    """Figures of each phrase whose means are compared, (phrases, figures); the last two are density and its square."""
    moves = np.abs(np.diff(form.shares, axis=0, prepend=form.shares[:1]))
    returns = [form.likeness >= least for least in RETURNS]
    of_role = np.nan_to_num(form.of_role)
    return np.column_stack(
        [form.likeness, *returns, form.harmony, of_role, form.shares, moves, form.density, form.density**2]
    ).astype(float)


def _header(form: Form) -> list[float]:
    drums = float(form.voices[DRUMS] > 0)
    sizes = [float(np.log2(max(1e-3, value))) for value in (form.phrase_s, form.phrase_bars, form.beats)]
    return [*np.log2(1 + form.voices).tolist(), drums, *sizes]


def save(path: Path, forms: Sequence[Form]) -> None:
    """Write forms as one small file; of each the first MOST_PHRASES phrases."""
    kept = [min(len(form), MOST_PHRASES) for form in forms]
    arrays = {"lengths": np.array(kept, np.uint8)}
    for name in PHRASE_FIELDS:
        values = np.concatenate([getattr(form, name)[:count] for form, count in zip(forms, kept, strict=True)])
        stored = np.clip(np.round(np.nan_to_num(values * _SCALES[name], nan=_MISSING)), -128, 127)
        arrays[name] = stored.astype(np.int8)
    arrays["voices"] = np.array([form.voices for form in forms]).clip(0, 255).astype(np.uint8)
    arrays["header"] = np.array([[form.phrase_bars, form.phrase_s, form.beats] for form in forms], np.float32)
    path.write_bytes(tensors.save(arrays))


def load(path: Path) -> Shelf:
    """Raises BadInput when the file is no shelf."""
    try:
        arrays = tensors.load_file(path)
        ends = np.cumsum(arrays["lengths"].astype(np.int64))
        columns = {name: _read(name, arrays[name]) for name in PHRASE_FIELDS}
        forms = []
        for i, (length, end) in enumerate(zip(arrays["lengths"].tolist(), ends.tolist(), strict=True)):
            own = {name: values[end - length : end] for name, values in columns.items()}
            bars, phrase_s, beats = arrays["header"][i].tolist()
            voices = arrays["voices"][i].astype(float)
            forms.append(Form(**own, voices=voices, phrase_bars=int(bars), phrase_s=phrase_s, beats=beats))
    except (SafetensorError, OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise BadInput(f"{path} is not a shelf of forms ({error}); make one with benchmarks/build_forms.py.") from None
    return Shelf(tuple(forms))


def _read(name: str, stored: np.ndarray) -> np.ndarray:
    if (kind := _KINDS[name]).kind != "f":
        return stored.astype(kind)
    values = stored.astype(float) / _SCALES[name]
    return np.where(stored == _MISSING, np.nan, values) if name == "of_role" else values


@lru_cache(maxsize=1)
def shipped() -> Shelf:
    """The shelf that comes with midiex. Raises MissingPart when the weights' folder is not there."""
    return load(asset_dir("weights") / FILE_NAME)
