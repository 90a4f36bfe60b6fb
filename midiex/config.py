"""Every size and setting of midiex as frozen dataclasses, read from and written to YAML.

Knows names, types and ranges; knows nothing of tensors, MIDI or training. A config that exists is a valid one:
each class checks itself when it is made, and a wrong key or value is named in the error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from .assets import asset_dir
from .errors import BadInput

MIN_HEAD_DIM = 16
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("auto", "float32")
ENGINES = ("auto", "torch", "onnx")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network; everything else about its shape is derived from these."""

    name: str
    d_model: int  # width of the residual stream
    n_heads: int
    encoder_layers: int
    decoder_layers: int
    d_ff: int  # inner width of SwiGLU
    d_head_hidden: int  # width of the heads that write a note's fields
    summary_rows: int = 4  # rows that stand for a chunk once it is too old to be kept in full

    @property
    def head_dim(self) -> int:
        """Width of one attention head, even (rotary positions turn pairs)."""
        return self.d_model // self.n_heads

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "model.name", self.name, "a name such as small")
        sizes = ("d_model", "n_heads", "encoder_layers", "decoder_layers", "d_ff", "d_head_hidden", "summary_rows")
        _at_least(1, "model", self, *sizes)
        _require(
            self.d_model % self.n_heads == 0,
            "model.d_model",
            self.d_model,
            f"a multiple of model.n_heads ({self.n_heads})",
        )
        _require(
            self.head_dim >= MIN_HEAD_DIM and self.head_dim % 2 == 0,
            "model.n_heads",
            self.n_heads,
            f"a number that leaves each head an even width of at least {MIN_HEAD_DIM} "
            f"(d_model {self.d_model} leaves {self.head_dim})",
        )


@dataclass(frozen=True)
class MemoryConfig:
    """What the decoder may look at, of a fixed size; one recalled chunk and one chunk after come on top."""

    recent_chunks: int = 2  # latest chunks, kept in full
    summary_chunks: int = 24  # older chunks, kept as summary rows; the song's opening is always among them

    def __post_init__(self) -> None:
        _at_least(1, "memory", self, "recent_chunks")
        _at_least(0, "memory", self, "summary_chunks")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: warm up, hold the learning rate, then let it fall in a straight line."""

    notes_per_batch: int
    lr: float  # peak
    weight_decay: float
    warmup_steps: int
    max_notes: int  # notes to train over in all; sets the schedule
    decay_fraction: float  # last part of the run, in which the learning rate falls to lr * min_lr_ratio
    min_lr_ratio: float
    grad_clip: float  # largest gradient norm
    ema_decay: float  # of the running mean of the weights
    window_chunks: int  # consecutive chunks of one song trained on together
    condition_dropout: float  # chance that a condition is hidden, so that "unknown" works
    seed: int
    optimizer: str = "adamw"  # of the matrices inside the network; all else learns by AdamW
    precision: str = "auto"  # of matrix products: bf16 where the hardware has units for it, or float32 everywhere
    with_source: float = 0.75  # share of chunks that are told what they go back to (aligned.py)
    with_standing: float = 0.12  # share of chunks of which some voices stand already
    without_past: float = 0.1  # share of chunks whose past is hidden, so that what is asked must be heeded

    def __post_init__(self) -> None:
        _require(self.optimizer in OPTIMIZERS, "train.optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        _require(self.precision in PRECISIONS, "train.precision", self.precision, " or ".join(PRECISIONS))
        _at_least(1, "train", self, "notes_per_batch", "max_notes", "window_chunks")
        _at_least(0, "train", self, "warmup_steps", "seed", "weight_decay")
        _above_zero("train", self, "lr", "grad_clip")
        _probability("train", self, "decay_fraction", "min_lr_ratio", "condition_dropout")
        _probability("train", self, "with_source", "with_standing", "without_past")
        _require(0 <= self.ema_decay < 1, "train.ema_decay", self.ema_decay, "a number from 0 to below 1")


@dataclass(frozen=True)
class GenerateConfig:
    """How a chunk is sampled and how often it may be tried again."""

    temperature: float = 0.93
    top_p: float = 0.98
    min_p: float = 0.02  # choices below this share of the likeliest one's probability are never taken
    candidates: int = 6  # versions of each chunk written at once; the one that fits best is kept
    max_attempts: int = 3  # rounds of candidates before the best poor one is taken
    habits: float = 1.0  # how much more the song's own habits weigh than they were trained to, in nats; 0: no more
    progression: float = 0.8  # how much the song's chord progression, if it has one, guides new pitches; 0: not at all
    aligned: float = 0.7  # how much more an aligned source weighs than it was trained to, in nats
    steering: float = 1.0  # how much chunks are steered towards how dense, loud and high they are to be; 0: not at all
    returns: float = 1.0  # how readily earlier music comes back, beside songs of the same habits; 0: never
    engine: str = "auto"  # what runs the decoder: torch, onnx (eight bits), or onnx where it is installed
    redraws: int = 8  # of a place in time at which the model expects a track that is not to be written

    def __post_init__(self) -> None:
        _require(self.engine in ENGINES, "generate.engine", self.engine, ", ".join(ENGINES))
        _above_zero("generate", self, "temperature", "top_p")
        _probability("generate", self, "top_p", "min_p")
        _at_least(1, "generate", self, "candidates", "max_attempts")
        _at_least(0, "generate", self, "redraws", "returns", "habits", "aligned", "steering", "progression")


_Section = TypeVar("_Section", ModelConfig, MemoryConfig, TrainConfig, GenerateConfig)


@dataclass(frozen=True)
class Config:
    """One model in full; saved beside its weights as config.yaml."""

    model: ModelConfig
    memory: MemoryConfig
    train: TrainConfig
    generate: GenerateConfig


def load_config(name_or_path: str | Path) -> Config:
    """Config of a shipped size ("tiny", "small", "base") or of a YAML file.

    Text that ends in .yaml or .yml or names a folder is a path; anything else is a size.
    Raises BadInput for an unknown size, a file that is missing or not YAML, and every wrong key or value.
    """
    text = str(name_or_path)
    is_path = Path(text).suffix in (".yaml", ".yml") or Path(text).name != text
    path = Path(text) if is_path else asset_dir("configs") / f"{text}.yaml"
    if not path.is_file():
        sizes = ", ".join(sorted(p.stem for p in asset_dir("configs").glob("*.yaml")))
        raise BadInput(f"There is no config '{text}'; give one of {sizes}, or the path of a YAML file.")
    try:
        return from_dict(yaml.safe_load(path.read_bytes()))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-99-99
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise BadInput(f"{path} is not readable as YAML{where}; mend it or start from configs/small.yaml.") from None


def from_dict(data: Any) -> Config:
    """Config from nested mappings as YAML gives them; sections memory and generate may be left out.

    Raises BadInput naming the key that is unknown, missing, of the wrong type or out of range.
    """
    sections = get_type_hints(Config)
    _refuse_unknown(data, list(sections), "")
    return Config(**{name: _section(cls, data.get(name, {}), name) for name, cls in sections.items()})


def to_yaml(config: Config) -> str:
    """The whole config as YAML text that `from_dict` reads back to an equal one."""
    return yaml.safe_dump({f.name: asdict(getattr(config, f.name)) for f in fields(config)}, sort_keys=False)


def _section(cls: type[_Section], data: Any, section: str) -> _Section:
    types = get_type_hints(cls)
    _refuse_unknown(data, list(types), section)
    for f in fields(cls):
        if f.name not in data and f.default is MISSING:
            raise BadInput(f"Config key '{section}.{f.name}' is missing; add it to section '{section}'.")
    return cls(**{key: _typed(value, types[key], f"{section}.{key}") for key, value in data.items()})


def _refuse_unknown(data: Any, allowed: list[str], section: str) -> None:
    here, prefix = (f"section '{section}'", f"{section}.") if section else ("a config", "")
    if not isinstance(data, Mapping):
        raise BadInput(f"Keys are needed in {here} ({', '.join(allowed)}), but {_kind(data)} was found; write them.")
    for key in data:
        if key not in allowed:
            raise BadInput(f"Config key '{prefix}{key}' is unknown; {here} may hold only {', '.join(allowed)}.")


def _typed(value: Any, kind: type, key: str) -> Any:
    """`value` as `kind` (int, float or str), refusing what would have to be guessed."""
    if kind is float:
        number = _number(value)
        if math.isfinite(number):
            return number
        need = "a number"
    else:
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        need = "a whole number" if kind is int else "text"
    raise BadInput(f"Config key '{key}' must be {need}, but {_kind(value)} was found; change it.")


def _number(value: Any) -> float:
    """A YAML value as a float, text too (YAML 1.1 reads 1e-3 as text, for want of a dot); nan if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _kind(value: Any) -> str:
    """A value as an error names it."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping | list):
        return "a list of keys" if isinstance(value, Mapping) else "a list"
    return repr(value)


def _require(ok: bool, key: str, value: object, need: str) -> None:
    if not ok:
        raise BadInput(f"Config key '{key}' is {value!r}; set it to {need}.")


def _at_least(least: int, section: str, config: object, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        _require(value >= least, f"{section}.{key}", value, f"at least {least}")


def _above_zero(section: str, config: object, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        _require(value > 0, f"{section}.{key}", value, "a number above 0")


def _probability(section: str, config: object, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        _require(0 <= value <= 1, f"{section}.{key}", value, "a number from 0 to 1")
