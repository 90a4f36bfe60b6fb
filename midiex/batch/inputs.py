"""The songs that are meant by files, folders, globs, zip archives and fsspec URLs, and their places in the output tree.

Names found in folders and archives are never trusted: a place always lies inside the output. Reads no music.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BadInput, MissingPart
from ..smf import MIDI_SUFFIXES, max_file_bytes

MAX_MEMBERS = 200_000  # of an archive
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # of two letters and more: C:/ is a drive


@dataclass(frozen=True)
class Item:
    """One song."""

    url: str  # as fsspec reads it; a plain path for a local file
    place: str  # relative, with /: "folder/song.mid"
    version: str  # changes when the song does
    problem: str = ""  # why it cannot be read, where that is known already


def find(inputs: Sequence[str], out: str = "") -> list[Item]:
    """All songs, sorted by place, no place twice. A folder's tree is kept; several inputs keep theirs apart, each under
    its own name. `out` is where their results will be MIDI files of the same names: what lies in it was made by an
    earlier run and is no song, though it be inside an input.

    Raises BadInput where an input is nothing, holds no MIDI, or is where its results will be; MissingPart where a URL
    needs a package that is missing.
    """
    found: list[Item] = []
    for text in inputs:
        items = list(_beside(text, out, _of_input(text)))
        if not items:
            raise BadInput(f"{text} holds no MIDI file ({', '.join(MIDI_SUFFIXES)}); give a folder that does.")
        is_tree = len(items) > 1 or items[0].place != PurePosixPath(text).name
        if len(inputs) > 1 and is_tree:
            name = PurePosixPath(text.rstrip("/").replace("\\", "/")).name.split("*")[0] or "songs"
            items = [replace(item, place=f"{_safe(name)}/{item.place}") for item in items]
        found += items
    return sorted(_apart(found), key=lambda item: item.place)


def _beside(text: str, out: str, items: Iterator[Item]) -> Iterator[Item]:
    """The songs of an input that are not results."""
    if not out:
        return items
    root, results = address(_root(text)), address(out)
    if root == results:
        raise BadInput(f"{text} would be mixed with its results; choose an output folder other than the songs' own.")
    if not results.startswith(f"{root.rstrip('/')}/"):
        return items
    return (item for item in items if not address(item.url).startswith(f"{results}/"))


def _root(text: str) -> str:
    """An input without what is a pattern in it."""
    if os.path.exists(text):
        return text
    return "/".join(_before_magic(text.replace(os.sep, "/").split("/")))


def address(url: str) -> str:
    """A path or URL so that those of one place are equal, with / between its parts."""
    name = url[7:] if url.startswith("file://") else url
    if _SCHEME.match(name):
        return re.sub("://+", "://", name).rstrip("/")
    return os.path.realpath(name).replace(os.sep, "/")


def from_root(url: str) -> str:
    """A path, or what is in an archive at one, as it is called from any folder; another URL as it is."""
    head, chained, last = url.rpartition("::")
    return url if _SCHEME.match(last) else head + chained + os.path.abspath(last)


def _of_input(text: str) -> Iterator[Item]:
    if _SCHEME.match(text):
        return _remote(text)
    path = Path(text)
    if path.is_dir():
        paths = (p for p in path.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES and p.is_file())
        return (_local(p, p.relative_to(path)) for p in paths)
    if path.is_file():
        return _archive(path) if zipfile.is_zipfile(path) else iter([_local(path, Path(path.name))])
    if glob.has_magic(text):
        return _globbed(text)
    raise BadInput(f"There is no file or folder {text}; check its name.")


def _globbed(pattern: str) -> Iterator[Item]:
    fixed = Path(*_before_magic(Path(pattern).parts))
    for match in sorted(Path(name) for name in glob.glob(pattern, recursive=True)):
        place = match.relative_to(fixed)
        if match.is_file() and match.suffix.lower() in MIDI_SUFFIXES:
            yield _local(match, place)
        elif match.is_dir() or match.suffix.lower() == ".zip":
            yield from (
                replace(item, place=f"{_inside(place.as_posix())}/{item.place}") for item in _of_input(str(match))
            )


def _before_magic(parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _local(path: Path, place: Path) -> Item:
    place_text = _inside(place.as_posix())
    try:
        size = path.stat().st_size
        if problem := _too_large(size):
            return Item(str(path), place_text, f"size:{size}", problem)
        return Item(str(path), place_text, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as error:
        return Item(str(path), place_text, "unreadable", f"it cannot be read ({error.strerror})")


def _too_large(size: int) -> str:
    """Why a song of so many bytes cannot be used, if so."""
    most = max_file_bytes()
    return f"it has {size} bytes and the limit is {most}" if size > most else ""


def _archive(path: Path) -> Iterator[Item]:
    """Songs inside a zip archive, which is never unpacked to a folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise BadInput(f"{path} is a damaged archive ({error}); make it anew.") from None
    if len(members) > MAX_MEMBERS:
        raise BadInput(f"{path} holds {len(members)} members and the limit is {MAX_MEMBERS}; split it.")
    for member in members:
        if member.is_dir() or PurePosixPath(member.filename).suffix.lower() not in MIDI_SUFFIXES:
            continue
        problem = _too_large(member.file_size)
        if _inside(member.filename) != member.filename:
            problem = "its name leads out of the archive"
        elif member.flag_bits & 1:
            problem = "it is encrypted"
        version = f"crc:{member.CRC:08x}:{member.file_size}"
        yield Item(f"zip://{member.filename}::{path}", _inside(member.filename), version, problem)


def _remote(text: str) -> Iterator[Item]:
    """Songs behind an fsspec URL: a file, a folder or a glob."""
    filesystem, root = _filesystem(text)
    try:
        if glob.has_magic(root):
            fixed = "/".join(_before_magic(root.split("/")))
            paths = [path for path in filesystem.glob(root) if filesystem.isfile(path)]
        elif filesystem.isdir(root):
            fixed, paths = root.rstrip("/"), filesystem.find(root)
        elif filesystem.isfile(root):
            fixed, paths = root.rpartition("/")[0], [root]
        else:
            raise BadInput(f"There is no file or folder {text}; check the URL.")
        for path in paths:
            if PurePosixPath(path).suffix.lower() in MIDI_SUFFIXES:
                place = _inside(path[len(fixed) :].lstrip("/"))
                yield Item(filesystem.unstrip_protocol(path), place, f"ukey:{filesystem.ukey(path)}")
    except (OSError, NotImplementedError) as error:
        raise BadInput(f"{text} cannot be read ({error}); check the URL and your access to it.") from None


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingPart(f"{url} needs a Python package that is not installed ({error}); install it.") from None
    except ValueError as error:
        raise BadInput(f"{url} is no URL that fsspec knows ({error}); check how it begins.") from None


def read(url: str) -> bytes:
    """The bytes of a song, no more than a MIDI file may have.

    Raises BadInput where it cannot be read or is larger.
    """
    import fsspec

    most = max_file_bytes()
    try:
        with fsspec.open(url, "rb") as file:
            data: bytes = file.read(most + 1)
    except Exception as error:  # every filesystem has its own
        raise BadInput(f"{url} cannot be read ({type(error).__name__}: {error}); check its name and access.") from None
    if len(data) > most:
        raise BadInput(f"{url} has more than {most} bytes, which is the limit; cut it shorter first.")
    return data


def _inside(name: str) -> str:
    """A relative place made of a name's parts that cannot lead anywhere else."""
    parts = [_safe(part) for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "song.mid"


def _safe(part: str) -> str:
    """A file's name that every system can write."""
    kept = "".join("_" if ord(c) < 32 or c in '<>:"|?*\x7f' else c for c in part).strip(" ")
    stem, dot, suffix = kept.rpartition(".")
    stem, suffix = (stem, dot + suffix) if dot and stem else (kept, "")
    room = 200 - len(suffix.encode(errors="replace"))
    while len(stem.encode(errors="replace")) > room:
        stem = stem[:-1]
    return stem.encode(errors="replace").decode() + suffix or "_"


def _apart(items: list[Item]) -> Iterator[Item]:
    """No place twice, not even where the case of letters or the suffix are all that differs."""
    names = Counter(_name(item.place) for item in items)
    taken: Counter[str] = Counter()
    for item in items:
        name = _name(item.place)
        if names[name] == 1:
            yield item
            continue
        taken[name] += 1
        place = PurePosixPath(item.place)
        told = f"{place.stem}_{place.suffix[1:]}" + (f"_{taken[name]}" if taken[name] > 1 else "")
        yield replace(item, place=str(place.with_name(told + place.suffix)))


def _name(place: str) -> str:
    return str(PurePosixPath(place).with_suffix("")).casefold()
