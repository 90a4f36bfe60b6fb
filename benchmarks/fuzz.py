"""Mutated MIDI files for the reader and for extending: each works or is refused in one sentence, in time and memory.

    python benchmarks/fuzz.py [--read 200000] [--extend 2000] [--seed 0] [--jobs 2] [--keep FOLDER]
    python benchmarks/fuzz.py --coverage 300 [--target extend]      seconds of atheris, which follows branches reached

Inputs are the examples and small files made here (every kind of event, meters, divisions, wrappers), mutated: bits,
lengths, counts, variable-length numbers and whole events are changed, cut out, doubled, or taken from another file,
several times over. The reader is `midiex.score.read`; extending uses a random model of the size tiny, which writes as
any other does. What fails is kept in the folder --keep. A process may take --seconds and --memory for an input.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import report
from tqdm import tqdm

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BATCH = 200  # inputs a task
EXTENDED_S = 20.0  # of a mutated song

INTERESTING = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xf0", b"\xf7", b"\xff\xff\xff\x7f", b"\x81\x80\x80\x00",
    b"\xff/\x00", b"\xffQ\x03\x00\x00\x00", b"\xffQ\x03\x00\x00\x01", b"\xffQ\x03\xff\xff\xff",
    b"\xffX\x04\x00\x00\x18\x08", b"\xffX\x04\xff\x1e\x18\x08", b"\xffX\x04\x01\x00\x18\x08",
    b"\xff\x01\xff\xff\xff\x7f", b"\xf0\xff\xff\xff\x7f", b"\x90<@", b"\x80<\x00", b"\x99&\x7f", b"\xc0\x00",
    b"\xb0@\x7f", b"\xe0\x00@", b"\xff \x01\x00", b"\xff\x03\x05a\x00\xff\xfe\xc3", b"MTrk", b"MThd",
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
)  # fmt: skip


# ---- inputs ---------------------------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack(">I", len(data)) + data


def midi(tracks: list[bytes], kind: int = 1, division: int = 480, count: int | None = None) -> bytes:
    """A file of track data; `count` tracks are announced."""
    header = struct.pack(">HHh", kind, len(tracks) if count is None else count, division)
    return chunk(b"MThd", header) + b"".join(chunk(b"MTrk", data) for data in tracks)


def little_songs() -> list[bytes]:
    """Files with every kind of event, and hostile ones as such arrive."""
    end = b"\x00\xff\x2f\x00"
    notes = b"".join(bytes([0, 0x90, 60 + n % 12, 80, 96, 0x80, 60 + n % 12, 0]) for n in range(24))
    running = b"\x00\x90\x3c\x40" + b"\x30\x3c\x00\x30\x3e\x40" * 20
    odd = (
        b"\x00\xff\x58\x04\x07\x03\x18\x08\x00\xff\x51\x03\x07\xa1\x20\x00\xff\x59\x02\x00\x00\x00\xff\x54\x05\x60\x00\x00\x00\x00"
        b"\x00\xf0\x05\x7e\x7f\x09\x01\xf7\x00\xff\x7f\x03\x00\x00\x41\x00\xff\x05\x04la\xc3\xa9\x00\xb0\x40\x7f\x00\xe0\x00\x40"
        b"\x00\xd0\x40\x00\xa0\x3c\x40\x00\xc0\x30"
    )  # fmt: skip
    plain = midi([odd + end, notes + end])
    return [
        plain,
        midi([notes + end], kind=0, division=96),
        midi([odd + notes + end, running + end, notes + end], kind=2),
        midi([running + end], division=-25 << 8 | 40),
        midi([notes + end], division=-29 << 8 | 100),
        midi([notes + end], division=1),
        midi([notes + end], division=32767),
        midi([notes + end], division=0),
        midi([notes + end], count=65535),
        midi([b"\x00\xff\x51\x03\x00\x00\x00" + notes + end]),  # tempo 0
        midi([b"\x00\xff\x58\x04\x00\x00\x18\x08" + notes + end]),  # 0/1
        midi([b"\x00\xff\x58\x04\xff\x1e\x18\x08" + notes + end]),  # 255/2^30
        midi([b"".join(bytes([1, 0xFF, 0x58, 4, 1 + n % 9, n % 5, 24, 8]) for n in range(64)) + notes + end]),
        midi([notes + b"\xff\xff\xff\x7f\x90\x3c\x40" + end]),  # a delta of 2^28
        midi([b"\x3c\x40\x00\x3e" + notes + end]),  # running status without a status
        midi([b"\x00\x90\x3c\x40" * 200 + end]),  # never released
        midi([b"\x00\xf0\x7f" + bytes(127) + b"\x00\xf0\x02\x01\xf7" * 100 + notes + end]),
        midi([notes]),  # no end of track
        chunk(b"MThd", struct.pack(">HHh", 1, 1, 480)) + b"MTrk\xff\xff\xff\xff" + notes,  # gigabytes announced
        b"MThd\x00\x00\x00\xff" + plain[8:14] + bytes(249) + plain[14:],
        b"RIFF" + struct.pack("<I", len(plain) + 12) + b"RMIDdata" + struct.pack("<I", len(plain)) + plain,
        b"XMF_1.00" + plain,
        plain.replace(b"MTrk", b"XFIH", 1) + chunk(b"XFKM", b"lyrics"),
        b"",
        b"MThd",
        bytes(range(256)) * 4,
    ]


def seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted(EXAMPLES.glob("*.mid"))] + little_songs()


def mutated(rng: random.Random, known: list[bytes], most_bytes: int = 60_000) -> bytes:
    """One of the known files with a few changes; in most cases inside its tracks, whose lengths are then put right, as
    else nearly all would be refused for these."""
    data = rng.choice(known)
    tracks = tracks_of(data)
    if tracks and rng.random() < 0.8:
        for _ in range(1 + min(int(rng.expovariate(0.7)), 5)):
            which = rng.randrange(len(tracks))
            tracks[which] = changed(rng, tracks[which], known)[: most_bytes // len(tracks)]
        head = bytearray(data[:14])
        if rng.random() < 0.1:
            head[rng.choice((9, 12, 13))] = rng.randrange(256)
        return bytes(head) + b"".join(chunk(b"MTrk", track) for track in tracks)
    for _ in range(1 + min(int(rng.expovariate(0.5)), 8)):
        data = changed(rng, data, known)
    return data[:most_bytes]


def tracks_of(data: bytes) -> list[bytes]:
    """The data of a plain file's tracks; nothing of what is no such file."""
    tracks, at = [], 14
    while data[:4] == b"MThd" and data[at : at + 4] == b"MTrk":
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        tracks.append(data[at + 8 : end])
        at = end
    return tracks


def changed(rng: random.Random, data: bytes, known: list[bytes]) -> bytes:
    """Bytes with one change."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 16, 256)))
    piece = rng.choice(INTERESTING)
    other = rng.choice(known)
    begin = rng.randrange(len(other) + 1)
    match rng.randrange(10):
        case 0 | 1 if at < len(data):
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 2 if at < len(data):
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 3:
            return data[:at] + rng.randbytes(end - at) + data[end:]
        case 4:
            return data[:at] + b"\x00" * rng.randrange(2) + piece + data[at:]
        case 5:
            return data[:at] + piece + data[at + len(piece) :]
        case 6:
            return data[:at] + data[end:]
        case 7:
            return data[:end] + data[at:end] * rng.choice((1, 2, 50)) + data[end:]
        case 8:
            return data[:at] + other[begin : begin + rng.choice((4, 64, 1024))] + data[at:]
        case _:
            return data[:at] if rng.random() < 0.3 else data


# ---- what is tried --------------------------------------------------------------------------------------------------


class TookTooLong(Exception):
    pass


_state: dict[str, Any] = {}


def settle() -> None:
    """Before a process tries anything."""
    import torch

    from midiex import process

    process.settle()
    torch.manual_seed(0)


def begin(memory_bytes: int, seconds: float) -> None:
    """Before a process of the pool tries inputs."""
    settle()
    _state.update(seconds=seconds)
    now = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + memory_bytes, now[1]))
    signal.signal(signal.SIGPROF, _too_long)


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA now."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmData")))
    return 1 << 30


def _too_long(*_: object) -> None:
    raise TookTooLong


def try_reading(path: Path) -> None:
    from midiex import score

    score.read(path)


def try_extending(path: Path) -> None:
    from midiex import extend, score

    if "model" not in _state:
        from midiex.config import load_config
        from midiex.model import ChunkTransformer

        config = load_config("tiny")
        _state["model"] = extend.Model(ChunkTransformer(config).eval().requires_grad_(False), config, "fuzz")
    song = score.read(path)
    last_tick = max(int(track.notes.numpy()["time"].max()) for track in song.score.tracks)
    begin_s = float(song.grid.seconds[song.grid.bar_at(last_tick) + 1])  # a note may be held for hours after it
    passage = extend.start(path, min(begin_s + EXTENDED_S, extend.MAX_SECONDS), model=_state["model"],
                           candidates=1, begin="end")  # fmt: skip
    out = extend.finish(passage, path.with_suffix(".out.mid"))
    score.read(path.with_suffix(".out.mid"))
    if out.length_s <= 0:
        raise RuntimeError("nothing was made")


TARGETS = {"read": try_reading, "extend": try_extending}


def outcome(function: Callable[[Path], None], path: Path) -> str:
    """worked, refused, or what went wrong."""
    from midiex.errors import MidiexError

    signal.setitimer(signal.ITIMER_PROF, _state["seconds"])
    try:
        function(path)
        return "worked"
    except MidiexError as error:
        text = str(error)
        is_clear = "\n" not in text and text.endswith(".") and len(text) < 500 and (";" in text or "," in text)
        return "refused" if is_clear else f"unclear: {text[:120]!r}"
    except TookTooLong:
        return "too long"
    except MemoryError:
        return "too much memory"
    except Exception as error:
        return f"crash: {type(error).__name__}: {str(error)[:100]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def try_many(what: str, seed: int, count: int) -> list[tuple[str, bytes]]:
    """Outcomes of so many inputs; of those that worked or were refused, without the input."""
    function = TARGETS[what]
    rng, known, found = random.Random(seed), seeds(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "song.mid")
        for _ in range(count):
            data = mutated(rng, known, 60_000 if what == "read" else 6_000)
            path.write_bytes(data)
            result = outcome(function, path)
            found.append((result, b"" if result in ("worked", "refused") else data))
            if result == "worked" and what == "read" and len(known) < 500:
                known.append(data)  # what is odd but can be read is worth changing again
    return found


def fuzz(what: str, count: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Tries so many; a row an outcome."""
    size = BATCH if what == "read" else 20
    tasks = [(args.seed * 1_000_003 + number, min(size, count - size * number)) for number in range(-(-count // size))]
    results: Counter[str] = Counter()
    begun = time.perf_counter()
    context = get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, begin, (int(args.memory * 2**30), args.seconds)) as pool:
        waiting = [pool.submit(try_many, what, seed, n) for seed, n in tasks]
        for future in tqdm(waiting, desc=what, unit=f" x {size}"):
            for result, data in future.result():  # a process that dies stops everything: a crash of the worst kind
                results[result] += 1
                if data:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{what}_{results.total():06d}.mid").write_bytes(data)
    wall_s = time.perf_counter() - begun
    return [{"what": what, "outcome": name, "inputs": n, "share": n / count, "wall s": wall_s}
            for name, n in results.most_common()]  # fmt: skip


def follow_coverage(what: str, seconds: int, keep: Path) -> None:
    """Atheris, which ends the process at the first failure or after some seconds."""
    import atheris

    with atheris.instrument_imports(include=["midiex"]):
        import midiex.extend
        import midiex.score  # noqa: F401
        from midiex.errors import MidiexError

    function = TARGETS[what]
    settle()
    keep.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp())
    for number, data in enumerate(little_songs()):
        (corpus / str(number)).write_bytes(data)
    path = corpus.parent / f"{corpus.name}.mid"

    def test(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(MidiexError):
            function(path)

    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=20000",
               f"-artifact_prefix={keep}/", str(corpus)]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], test)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=int, default=200_000, metavar="N", help="inputs to the reader")
    parser.add_argument("--extend", type=int, default=2_000, metavar="N", help="inputs to extending")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the processor that an input may take")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB that an input may take")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_failures"), help="folder for inputs that failed")
    parser.add_argument("--coverage", type=int, metavar="SECONDS", help="only follow coverage, with atheris")
    parser.add_argument("--target", choices=TARGETS, default="read", help="what --coverage tries")
    args = parser.parse_args()
    if args.coverage:
        return follow_coverage(args.target, args.coverage, args.keep)
    rows = [row for what, count in (("read", args.read), ("extend", args.extend)) if count
            for row in fuzz(what, count, args)]  # fmt: skip
    report("fuzz", rows, seed=args.seed, seconds=args.seconds, memory_gib=args.memory)
    sys.exit(any(row["outcome"] not in ("worked", "refused") for row in rows))


if __name__ == "__main__":
    main()
