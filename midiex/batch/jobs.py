"""What is to be done with a song and what came of it, as plain values that travel between processes as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .inputs import Item

# A song is refused that cannot be used however often it is tried.
DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True)
class Settings:
    """The same for all songs of a run."""

    kind: str  # "extend", or "convert" for audio alone
    out: str  # folder or fsspec URL
    seconds: float = 300.0
    audio: str = ""  # suffix of audio files, "" for none
    stems: bool = False  # each track as audio of its own as well
    seed: int = 0
    model: str = ""  # folder or name, "" for the one that ships
    soundfont: str = ""  # "" for the usual one
    options: dict[str, Any] = field(default_factory=dict)  # of extend.start
    made_by: str = ""  # version, weights and soundfont, by which outputs would differ

    @property
    def key(self) -> str:
        """Differs where outputs may."""
        told = {name: value for name, value in asdict(self).items() if name not in ("out", "model", "soundfont")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Limits:
    """What one song may take before it is given up."""

    seconds: float = 600.0  # of wall time
    memory_bytes: int = 4 << 30  # Linux only: elsewhere processes cannot be held to it


@dataclass(frozen=True)
class Job:
    """A song and what to make of it."""

    item: Item
    settings: Settings

    def outputs(self) -> dict[str, str]:
        """Kind and place of each file to be written."""
        place = PurePosixPath(self.item.place)
        made = {} if self.settings.kind == "convert" else {"midi": str(place.with_suffix(".mid"))}
        return made | ({"audio": str(place.with_suffix(self.settings.audio))} if self.settings.audio else {})

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        told = json.loads(text)
        return cls(Item(**told["item"]), Settings(**told["settings"]))


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    result: str  # DONE, REFUSED or FAILED
    reason: str = ""  # a sentence, where it is not done
    input_sha256: str = ""
    outputs: dict[str, str] = field(default_factory=dict)  # place: SHA-256
    music_s: float = 0.0  # of the result
    wall_s: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        return cls(**json.loads(text))
