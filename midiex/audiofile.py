"""Audio files: blocks of samples, levelled and faded out, into one whole file. Knows formats; knows no synth."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from .errors import BadInput

Audio = npt.NDArray[np.float32]  # (frames, 2)

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


def write(target: Path, blocks: Iterable[Audio], frames: int, rate: int, gain: float, fade: int) -> float:
    """Writes the first `frames` of the blocks (n, 2), multiplied by `gain`, the last `fade` frames faded out, and
    returns the largest sample written. The file appears under its name only when it is complete.

    The blocks should be short: one long write of Vorbis overflows the stack inside the encoder.
    Raises BadInput when the encoder refuses, OSError when the place does.
    """
    kind, subtype = FORMATS[target.suffix.lower()]
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    fade, done, peak = min(frames, fade), 0, 0.0
    try:
        with soundfile.SoundFile(part, "w", rate, 2, subtype, format=kind) as out:
            for block in blocks:
                block = block[: frames - done] * np.float32(gain)
                done += len(block)
                if done > frames - fade:
                    left = np.arange(frames - done + len(block), frames - done, -1)[:, None]
                    block *= np.clip(left / fade, 0, 1).astype(np.float32)
                peak = max(peak, peak_of(block))
                if subtype == "PCM_16":
                    block += np.float32(0.5 / 32768)  # the encoder rounds down
                out.write(block)
                if done == frames:
                    break
        if kind == "OGG":
            _fix_ogg_serial(part)
        os.replace(part, target)
    except soundfile.LibsndfileError as error:
        raise BadInput(f"{target} cannot be written ({error}); choose another folder, format or rate.") from error
    finally:
        part.unlink(missing_ok=True)
    return peak


def peak_of(block: Audio) -> float:
    """The largest sample of a block, 0 for none."""
    return float(max(block.max(initial=0), -block.min(initial=0)))


def _fix_ogg_serial(path: Path) -> None:
    """Sets the stream's serial number, random in every new Ogg file, to 1: same song, same bytes."""
    data = bytearray(path.read_bytes())
    page = 0
    while page < len(data):
        table = page + 27
        body = table + data[page + 26]
        end = body + sum(data[table:body])
        data[page + 14 : page + 18] = (1).to_bytes(4, "little")
        data[page + 22 : page + 26] = bytes(4)
        data[page + 22 : page + 26] = _ogg_checksum(bytes(data[page:end])).to_bytes(4, "little")
        page = end
    path.write_bytes(data)


_MIRROR = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's with the bits the other way round and no inversion."""
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
