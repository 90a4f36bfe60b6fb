"""midiex's windows in MidiTok's REMI: no note and no bar is lost, nothing is foreseen by looking, and it learns."""

from __future__ import annotations

import csv
import importlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import miditok
import numpy as np
import pytest
import symusic
import torch
from helpers import BAND, random_rows, song_in_bars, song_of, tiny_config, write_song

from midiex import dataset, train, windows
from midiex.dataset import load_split, validation_windows
from midiex.model import ChunkTransformer
from midiex.prepare import prepare
from midiex.tokens import BAR, DRUM_PROGRAM, FIELD_SIZES, PITCH, POSITION, PROGRAM
from midiex.train import VALID_WINDOWS, Run
from midiex.windows import Song, make_chunk

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
METERS = [(4, 4)] * 3 + [(3, 8)] * 5 + [(6, 8), (7, 8), (3, 4), (2, 4), (9, 8)] + [(4, 4)] * 8


@pytest.fixture(scope="module")
def remi() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("rivals.remi")


@pytest.fixture(scope="module")
def words(remi: ModuleType) -> ModuleType:
    return importlib.import_module("rivals.remi_tokens")


@pytest.fixture(scope="module")
def plain(remi: ModuleType) -> miditok.REMI:
    return remi.remi()


@pytest.fixture(scope="module")
def midi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs of a band, of a piano, and of bars of many meters."""
    folder = tmp_path_factory.mktemp("midi")
    lines = ["source,file,split"]
    for source in ("bands", "meters", "pianos"):
        for i in range(4):
            path = folder / source / f"{i}.mid"
            path.parent.mkdir(exist_ok=True)
            if source == "meters":
                song_in_bars(path, METERS[i:], programs=(0, 40))
            else:
                write_song(path, bars=24, programs=BAND if source == "bands" else (0,), seed=i)
            lines.append(f"{source},{i}.mid,{'valid' if i == 3 else 'train'}")
    (folder / "splits.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def shards(midi: Path) -> Path:
    prepare([midi / name for name in ("bands", "meters", "pianos")], midi / "out", midi / "splits.csv", jobs=1)
    return midi / "out"


@pytest.fixture(scope="module")
def merges(words: ModuleType, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "MERGED_VOCABULARY", 800)
        found: Path = words.prepare(shards, tmp_path_factory.mktemp("merges"), windows=12)
        return found


@pytest.fixture(scope="module")
def merged(merges: Path) -> miditok.REMI:
    return miditok.REMI(params=merges)


def whole(song: Song) -> windows.Window:
    """A window of all bars of a song, as one chunk."""
    beat_starts = np.concatenate([[0.0], np.cumsum(song.bar_units / 96)])
    chunk = make_chunk(song, 0, len(song.bar_s), beat_starts, 1)
    return windows.Window([chunk], 0, 0, len(chunk.rows) + 1)


def kinds(tokenizer: miditok.REMI, tokens: np.ndarray) -> Counter[str]:
    return Counter(tokenizer[int(token)].split("_")[0] for token in tokens)


def in_plain(tokenizer: miditok.REMI, tokens: np.ndarray) -> list[int]:
    """Tokens with their merges undone."""
    sequence = miditok.TokSequence(ids=tokens.tolist(), are_ids_encoded=tokenizer.is_trained)
    tokenizer.decode_token_ids(sequence)
    return sequence.ids


def heard(tokenizer: miditok.REMI, tokens: list[int]) -> list[tuple[int, ...]]:
    """Notes (1/24 beat, program, pitch) that MidiTok makes of tokens."""
    score = tokenizer(miditok.TokSequence(ids=tokens)).resample(24)
    return sorted(
        (note.time, DRUM_PROGRAM if track.is_drum else track.program, note.pitch)
        for track in score.tracks
        for note in track.notes
    )


# ---- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["bands", "meters", "pianos"])
def test_tokens_hold_the_notes_and_bars_of_the_file(
    words: ModuleType, plain: miditok.REMI, midi: Path, shards: Path, source: str
) -> None:
    [songs] = [own for own in load_split(shards, "valid") if own.source == source]
    song = songs.song(0)
    tokens = words.TokenWindow.of(whole(song), song.bar_units, plain).tokens
    score = symusic.Score(midi / source / "3.mid")
    found, bars = kinds(plain, tokens), len(METERS) - 3 if source == "meters" else 24
    assert found["Duration"] == found["Velocity"] == found["Program"] == score.note_num()
    assert found["Bar"] == found["TimeSig"] == bars
    written = [
        (n.time * 24 // 480, DRUM_PROGRAM if t.is_drum else t.program, n.pitch) for t in score.tracks for n in t.notes
    ]
    assert heard(plain, tokens[1:].tolist()) == sorted(written)


def test_meters_are_those_of_the_bars(words: ModuleType, plain: miditok.REMI, shards: Path) -> None:
    [songs] = [own for own in load_split(shards, "valid") if own.source == "meters"]
    song = songs.song(0)
    tokens = words.TokenWindow.of(whole(song), song.bar_units, plain).tokens
    meters = [plain[int(t)].split("_")[1] for t in tokens if plain[int(t)].startswith("TimeSig")]
    beats = [4 * n / d for n, d in (map(int, meter.split("/")) for meter in meters)]
    assert beats == (song.bar_units / 96).tolist()
    assert {"3/8", "3/4", "7/8", "9/8"} <= set(meters)


def test_odd_bars_lose_no_note(words: ModuleType, plain: miditok.REMI) -> None:
    """Bars of no length, of no whole number of eighths, and with a note behind their end."""
    rows = random_rows(np.random.default_rng(1), 60, bars=4)
    rows[rows[:, BAR] == 1, POSITION] = 0
    song = Song(rows, np.full(4, 1.0), np.array([384, 0, 200, 96]))
    tokens = words.TokenWindow.of(whole(song), song.bar_units, plain).tokens
    names = [plain[int(token)] for token in tokens]
    per_bar = [list(own) for bar, own in itertools.groupby(names, lambda name: name == "Bar_None") if not bar][1:]
    assert [sum(name.startswith("Duration") for name in own) for own in per_bar] == np.bincount(rows[:, BAR]).tolist()


def test_merges_say_the_same_in_less(
    words: ModuleType, plain: miditok.REMI, merged: miditok.REMI, shards: Path
) -> None:
    sources = load_split(shards, "valid")
    of_plain, of_merged = (words.validation(sources, 3, tokenizer) for tokenizer in (plain, merged))
    assert len(plain) < len(merged) == 800
    for one, other in zip(of_plain, of_merged, strict=True):
        assert in_plain(merged, other.tokens) == one.tokens.tolist()
        assert in_plain(merged, other.tokens[: other.read]) == one.tokens[: one.read].tolist()
        assert len(other.tokens) < 0.8 * len(one.tokens)


def test_validation_hears_the_stretch_that_midiex_does(words: ModuleType, plain: miditok.REMI, shards: Path) -> None:
    sources = load_split(shards, "valid")
    windows = words.validation(sources, 2, plain)
    assert len(windows) == len(sources) and any(window.extras for window in windows)
    for window, same in zip(windows, validation_windows(sources, 2, VALID_WINDOWS), strict=True):
        assert (window.source, window.notes) == (same.source, same.notes)
        song = sources[window.source].song(0)
        first = same.chunks[same.extras].first_bar
        bars = slice(first, same.chunks[-1].first_bar + same.chunks[-1].bars)
        inside = song.rows[(song.rows[:, BAR] >= bars.start) & (song.rows[:, BAR] < bars.stop)]
        starts = np.concatenate([[0], np.cumsum(song.bar_units[bars])]) // 4
        expected = zip(
            starts[inside[:, BAR] - first] + 2 * inside[:, POSITION],
            inside[:, PROGRAM],
            inside[:, PITCH] % 128,
            strict=True,
        )
        assert heard(plain, window.tokens[window.read :].tolist()) == sorted(tuple(map(int, note)) for note in expected)
        before = kinds(plain, window.tokens[: window.read])
        assert before["BOS"] == window.extras + 1
        assert before["Duration"] == sum(len(chunk.rows) for chunk in same.chunks[: same.extras])
        batch = words.TokenBatch.of([window])
        assert int(batch.lengths.sum()) == len(inside) == same.notes - len(same.chunks) + same.extras
        assert batch.following[batch.following >= 0].tolist() == window.tokens[window.read :].tolist()
        assert (batch.following[: window.read - 1] == -1).all()


def test_training_hears_what_midiex_trains_on(words: ModuleType, plain: miditok.REMI, shards: Path) -> None:
    config = tiny_config(notes_per_batch=300, window_chunks=2, with_source=0.0, with_standing=0.0)  # as in `sizes`
    sources = load_split(shards, "train")
    ours = dataset.Dataset(sources, config.train, config.memory).batches()
    theirs = words.TokenDataset(sources, config, plain).batches()
    for (own, *at), (other, *place) in itertools.islice(zip(ours, theirs, strict=False), 4):
        assert at == place
        for part, same in zip(other, own, strict=True):
            assert int(part.lengths.sum()) == int(same.lengths[same.target].sum())
            assert kinds(plain, part.following[part.following >= 0].numpy())["Duration"] == int(part.lengths.sum())


def test_silence_is_no_error(words: ModuleType, plain: miditok.REMI, remi: ModuleType) -> None:
    song = song_of(np.zeros((0, len(FIELD_SIZES)), np.int32), 4)
    window = words.TokenWindow.of(whole(song), song.bar_units, plain)
    assert window.tokens.tolist() == [plain["BOS_None"]]
    batch = words.TokenBatch.of([window])
    assert int(batch.lengths.sum()) == 0
    assert len(remi.TokenModel(tiny_config(), len(plain))(batch)) == 0


# ---- the network -----------------------------------------------------------------------------------------------------


def batch_of(words: ModuleType, sequences: list[list[int]]) -> Any:
    windows = [words.TokenWindow([], 0, 0, 0, tokens=np.array(tokens), read=1) for tokens in sequences]
    return words.TokenBatch.of(windows)


@pytest.mark.parametrize("name", ["remi", "remi_bpe"])
@pytest.mark.parametrize("scale", ["3M", "12M"])
def test_as_large_as_midiex(remi: ModuleType, words: ModuleType, plain: miditok.REMI, name: str, scale: str) -> None:
    vocabulary = words.MERGED_VOCABULARY if name == "remi_bpe" else len(plain)
    networks = remi.TokenModel(remi.config(name, scale), vocabulary), ChunkTransformer(remi.sizes.config("ours", scale))
    size, expected = (sum(weight.numel() for weight in network.parameters()) for network in networks)
    assert abs(size / expected - 1) < 0.02


def test_a_token_hears_only_those_before_it_in_its_window(remi: ModuleType, words: ModuleType) -> None:
    torch.manual_seed(0)
    network = remi.TokenModel(tiny_config(), 30)
    with torch.no_grad():
        network.out.weight.mul_(50)
        for layer in network.layers:
            layer.attention.out_norm.weight.fill_(1.0)
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 30, n).tolist() for n in (9, 14))
    nats = network(batch_of(words, [first, second]))
    changed = network(batch_of(words, [first, [*second[:9], (second[9] + 1) % 30, *second[10:]]]))
    assert nats.shape == (8 + 13,)
    torch.testing.assert_close(nats[:16], changed[:16])  # the 9th token of the second is foreseen by 8 + 8
    assert ((nats[16:] - changed[16:]).abs() > 1e-4).all()
    alone = network(batch_of(words, [second]))
    torch.testing.assert_close(nats[8:], alone)


def test_begins_with_what_can_be_counted(remi: ModuleType, words: ModuleType) -> None:
    torch.manual_seed(0)
    network = remi.TokenModel(tiny_config(), 50)
    tokens = torch.from_numpy(
        np.random.default_rng(0).choice(50, 4000, p=np.arange(50) ** 4 / (np.arange(50) ** 4).sum())
    )
    network.begin_with(tokens)
    share = np.bincount(tokens.numpy(), minlength=50) / 4000
    entropy = -float((share[share > 0] * np.log(share[share > 0])).sum())
    assert float(network(batch_of(words, [tokens.tolist()])).detach().mean()) == pytest.approx(entropy, abs=0.1)
    assert entropy < 0.8 * np.log(50)


def test_learns_to_copy(remi: ModuleType, words: ModuleType) -> None:
    """Sequences whose second half repeats the first, which is random: only context can tell it."""
    torch.manual_seed(0)
    config = tiny_config(lr=0.01, warmup_steps=5, max_notes=10**9)
    run = Run(remi.TokenModel(config, 12), config.train)
    rng = np.random.default_rng(0)

    def drawn() -> Any:
        halves = rng.integers(1, 12, (32, 6)).tolist()
        return batch_of(words, [[0, *half, *half] for half in halves])

    for _ in range(80):
        run.step_on(run.model, [drawn()], 1)
    with torch.no_grad():
        nats = run.model(drawn()).view(32, 12)
    assert float(nats[:, :6].mean()) > 2.3  # nothing tells it: log 11
    assert float(nats[:, 7:].mean()) < 0.3


# ---- training --------------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("bpe", [False, True])
def test_a_run_writes_midiex_s_logs_and_goes_on(
    remi: ModuleType, shards: Path, merges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpe: bool
) -> None:
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(remi.sizes.SCALES, "toy", replace(remi.sizes.SCALES["3M"], d_model=32, n_heads=2))
    for name in ("remi", "remi_bpe"):
        monkeypatch.setitem(remi.LAYERS[name], "toy", (1, 32))
    options = {"scale": "toy", "notes_per_batch": 200, "window_chunks": 2, "warmup_steps": 2, "lr": 0.01}

    def go_on(notes: int) -> float:
        return remi.train_remi(bpe, 10, 1, shards, tmp_path, 1e9, merges=merges, max_notes=notes, **options)

    early = go_on(1000)
    begun = lines(tmp_path / train.LOG_FILE)
    pooled = go_on(4000)
    log, valid = lines(tmp_path / train.LOG_FILE), lines(tmp_path / train.VALID_FILE)
    assert log[: len(begun)] == begun and len(log) > len(begun)
    assert list(log[0]) == ["step", "notes", "wall_s", "loss", "notes_per_s", "lr_share", "grad_norm"]
    assert int(begun[-1]["notes"]) >= 1000 and int(log[-1]["notes"]) >= 4000
    assert pooled < 0.97 * early
    assert {"step", "notes", "source", "all"} <= set(valid[0])
    last = [float(line["all"]) for line in valid[-3:]]
    assert {line["source"] for line in valid[-3:]} == {"bands", "meters", "pianos"}
    assert pooled == pytest.approx(np.mean(last), abs=1e-3)
    assert go_on(4000) == pytest.approx(pooled)  # there is nothing left to do
    assert lines(tmp_path / train.LOG_FILE) == log
