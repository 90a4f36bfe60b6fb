"""The MIDI files, broken ones among them, that other libraries carry in the tests of their source distributions: each
is read or refused in one sentence. Skipped where no package index can be reached."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
from html import unescape
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

import pytest

from midiex import score
from midiex.errors import BadInput

WAIT_S = 20
MOST_BYTES = 100 << 20
BROKEN = re.compile(r"corrupt|error|broken|invalid|empty", re.IGNORECASE)


def index() -> str:
    """The package index that pip uses, with a slash."""
    asked = os.environ.get("PIP_INDEX_URL") or _told("-m", "pip", "config", "get", "global.index-url")
    # in a process of its own: pip's insides bring a distutils along that others in this one do not want
    asked = asked or _told("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)")
    return asked.rstrip("/") + "/"


def _told(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False).stdout.strip()


def midi_files(package: str) -> dict[str, bytes]:
    """Name and bytes of every MIDI file in the latest source distribution; skips where there is none to be had."""
    try:
        page = urljoin(index(), f"{package}/")
        with urllib.request.urlopen(page, timeout=WAIT_S) as answer:
            links = [unescape(link) for link in re.findall(r'href="([^"]+)"', answer.read().decode())]
        latest = [urljoin(page, link) for link in links if ".tar.gz" in link][-1]
        with urllib.request.urlopen(latest.partition("#")[0], timeout=WAIT_S) as answer:
            data = answer.read(MOST_BYTES)
    except (OSError, ValueError, IndexError) as error:
        pytest.skip(f"no source distribution of {package} can be had: {type(error).__name__}")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        songs = [
            m for m in archive.getmembers() if m.isfile() and PurePosixPath(m.name).suffix.lower() in (".mid", ".midi")
        ]
        return {m.name: (archive.extractfile(m) or io.BytesIO()).read() for m in songs}


@pytest.mark.parametrize("package", ["miditok", "symusic"])
def test_every_file_is_read_or_refused_in_one_sentence(package: str, tmp_path: Path) -> None:
    found = midi_files(package)
    if not found:
        pytest.skip(f"the source distribution of {package} carries no MIDI file")
    path, broken = tmp_path / "song.mid", 0
    for name, data in found.items():
        path.write_bytes(data)
        broken += bool(BROKEN.search(name))
        try:
            assert score.read(path).length_s > 0, name
        except BadInput as error:
            assert str(error).endswith(".") and "\n" not in str(error), name
            assert BROKEN.search(name), f"{name}, which is sound, was refused: {error}"
    assert broken or package != "miditok"
