"""The networks midiex's own is compared with: as large, told as much, able to learn, and none that looks ahead."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import model_batch, random_rows, song_of, tiny_config, window_chunks, write_song
from torch import Tensor, nn

import midiex
from midiex import collate, dataset, windows
from midiex.evaluation import likelihood
from midiex.model import AFTER, OPENING, RECENT, Batch, NoteModel, Steps
from midiex.prepare import prepare
from midiex.stepper import Stepper
from midiex.tokens import BAR, DURATION, FIELD_SIZES, HEAD_ORDER, MICRO, MICRO_CENTER, PITCH, VELOCITY, sort_rows
from midiex.train import Run, train
from midiex.windows import Window

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RIVALS = ("lstm", "lstm_attention", "gru", "decoder_only")
RECURRENT, RUNNING = RIVALS[:3], RIVALS[2:]
PLACE = HEAD_ORDER.index(PITCH)


@pytest.fixture(scope="module")
def sizes() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("rivals.sizes")


@pytest.fixture(scope="module")
def recurrence(sizes: ModuleType) -> ModuleType:
    return sys.modules["rivals.recurrence"]


@pytest.fixture
def chunks() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [random_rows(rng, 60, bars=4)[::3][:n] for n in (9, 7, 0, 12, 8)]


def tiny(sizes: ModuleType, name: str, seed: int = 0, **options: object) -> NoteModel:
    torch.manual_seed(seed)
    config = tiny_config()
    return sizes.builder(name, **options)(replace(config, model=replace(config.model, d_ff=48)))


def lively(sizes: ModuleType, name: str, **options: object) -> NoteModel:
    """A random one that is sure of itself: nearly even odds would hide what it sees."""
    network = tiny(sizes, name, **options)
    with torch.no_grad():
        for head in network.heads.out:
            head.weight.mul_(20)
        for module in network.modules():
            if isinstance(module, nn.RNNBase):
                for weight in module.parameters():
                    weight.mul_(1.5)
            elif isinstance(module, nn.RMSNorm) and float(module.weight.mean()) < 0.5:
                module.weight.fill_(1.0)  # branches that count
    return network.eval()


def batch_of(chunks: list[np.ndarray], target: list[int]) -> Batch:
    full = [[(i - 1, RECENT)] if i else [] for i in target]
    return model_batch(chunks, target, full, [[(0, OPENING)] if i > 1 else [] for i in target])


def real_batch(seed: int = 0, windows: int = 3, **changes: object) -> Batch:
    """Windows of unlike lengths, with extras, as training draws them."""
    rng = np.random.default_rng(seed)
    drawn = []
    for number in range(windows):
        own = window_chunks(rng, 3 + number)
        drawn.append(Window(own, number % 3, 0, sum(len(c.rows) + 1 for c in own[number % 3 :])))
    return replace(collate.collate(drawn, tiny_config().memory, 0.1, rng), **changes)


def untold(sizes: ModuleType, batch: Batch) -> Batch:
    """Without echoes, habits and conditions."""
    told = ("conditions", "programs", "voices")
    return replace(sizes.plain(batch), **{name: torch.zeros_like(getattr(batch, name)) for name in told})


@torch.no_grad()
def losses(network: NoteModel, batch: Batch) -> list[Tensor]:
    return list(network(batch).split((batch.lengths[batch.target] + 1).tolist()))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


# ---- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "about"), [("3M", 3.4e6), ("12M", 12e6)])
def test_all_have_as_many_parameters(sizes: ModuleType, scale: str, about: float) -> None:
    counts = {name: sum(p.numel() for p in sizes.build(name, scale).parameters()) for name in sizes.NETWORKS}
    assert set(counts) == {"ours", *RIVALS}
    assert counts["ours"] == pytest.approx(about, rel=0.1)
    assert all(count == pytest.approx(counts["ours"], rel=0.05) for count in counts.values()), counts


@pytest.mark.parametrize("name", RIVALS)
def test_only_the_trunk_differs(sizes: ModuleType, name: str) -> None:
    """What is shared has the same shapes and the same settings of training."""
    ours, rival = tiny(sizes, "ours"), tiny(sizes, name)
    shared = ("previous.", "ahead.", "echoes.", "begin.", "condition.", "programs.", "voices.", "heads.")
    shapes = [
        {k: v.shape for k, v in network.state_dict().items() if k.startswith(shared)} for network in (ours, rival)
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 40
    train = sizes.config(name, "3M", seed=7).train
    assert train == sizes.config("ours", "3M", seed=7).train
    assert train.with_source == train.with_standing == train.without_past == 0  # what rivals have no ears for


def test_midiex_knows_no_rivals() -> None:
    for path in sorted(Path(midiex.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any({"benchmarks", "rivals"} & set(name.split(".")) for name in names), path


# ---- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", ["ours", *RIVALS])
def test_losses_and_gradients_are_finite_and_shaped_as_ours(sizes: ModuleType, name: str, alone: bool) -> None:
    batch = real_batch()
    network = tiny(sizes, name, alone=alone)
    out = network(batch)
    assert torch.isfinite(out).all() and (out >= 0).all()
    ours = tiny(sizes, "ours")(batch)
    assert out.shape == ours.shape and ((out > 0) == (ours > 0)).all()  # the same decisions
    out.sum().backward()
    grads = {name: p.grad for name, p in network.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in grads.values())
    silent = {name for name, g in grads.items() if g is not None and not g.any()}
    assert all(name.startswith(("heads.gate", "heads.bucket", "heads.level", "heads.out.1")) for name in silent), silent


def test_plain_hides_what_is_counted_and_nothing_else(sizes: ModuleType) -> None:
    batch = real_batch()
    batch = replace(batch, aligned_share=batch.aligned_share + 1, aligned_bucket=batch.aligned_bucket + 1)
    hidden = sizes.plain(batch)
    counted = {"echoes", "habit_share", "habit_bucket", "habit_level", "aligned_share", "aligned_bucket"}
    for name in (f.name for f in fields(Batch)):
        before, after = getattr(batch, name), getattr(hidden, name)
        assert before.shape == after.shape and before.dtype == after.dtype
        assert torch.equal(before, after) == (name not in counted), name
    assert (hidden.echoes == batch.echoes.amax((0, 1))).all()  # the highest value of a field is NOTHING


@pytest.mark.parametrize("name", RIVALS)
def test_alone_is_plain_for_every_batch(sizes: ModuleType, name: str) -> None:
    batch = real_batch()
    assert torch.equal(tiny(sizes, name, alone=True)(batch), tiny(sizes, name)(sizes.plain(batch)))
    assert not torch.equal(tiny(sizes, name)(batch), tiny(sizes, name)(sizes.plain(batch)))


@pytest.mark.parametrize("name", RIVALS)
def test_windows_do_not_hear_each_other(sizes: ModuleType, name: str) -> None:
    rng = np.random.default_rng(1)
    memory, network = tiny_config().memory, lively(sizes, name)
    drawn = [Window(window_chunks(rng, n), extras, 0, 0) for n, extras in ((3, 1), (5, 0), (1, 0), (4, 2))]
    together = losses(network, collate.collate(drawn, memory, 0.0, None))
    alone = [part for w in drawn for part in losses(network, collate.collate([w], memory, 0.0, None))]
    assert len(together) == len(alone) == 10
    assert all(close(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("name", RIVALS)
def test_empty_chunks_and_whole_empty_windows_work(sizes: ModuleType, name: str) -> None:
    nothing = np.zeros((0, 8), np.int32)
    network = tiny(sizes, name)
    notes = random_rows(np.random.default_rng(0), 6)
    for music in ([nothing], [nothing, nothing], [nothing, notes], [notes, nothing, nothing]):
        out = network(batch_of(music, list(range(len(music)))))
        assert out.shape == (sum(map(len, music)) + len(music), 8) and torch.isfinite(out).all()


# ---- what may be known -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize(("chunk", "note"), [(0, 3), (1, 6), (3, 0), (3, 5), (4, 2)])
def test_a_later_note_changes_no_earlier_loss(
    sizes: ModuleType, chunks: list[np.ndarray], name: str, chunk: int, note: int
) -> None:
    network = lively(sizes, name)
    other = [rows.copy() for rows in chunks]
    other[chunk][note, PITCH] = (other[chunk][note, PITCH] + 40) % FIELD_SIZES[PITCH]
    before, after = (
        losses(network, sizes.plain(batch_of(music, list(range(len(music)))))) for music in (chunks, other)
    )
    assert all(close(a, b) for a, b in zip(before[:chunk], after[:chunk], strict=True))
    assert close(before[chunk][: note + 1], after[chunk][: note + 1])  # of the notes before, and this one's onset
    assert close(before[chunk][note + 1, :PLACE], after[chunk][note + 1, :PLACE])
    later = [before[chunk][note + 2 :], *before[chunk + 1 :]], [after[chunk][note + 2 :], *after[chunk + 1 :]]
    for a, b in zip(*later, strict=True):  # but all that come after know it
        assert not len(a) or not close(a, b)


@pytest.mark.parametrize("name", RIVALS)
def test_a_chunk_after_the_gap_is_ignored(sizes: ModuleType, chunks: list[np.ndarray], name: str) -> None:
    network = lively(sizes, name)
    heard = []
    for coming in (chunks[4], random_rows(np.random.default_rng(9), 20), np.zeros((0, 8), np.int32)):
        batch = model_batch([*chunks[:4], coming], [3], [[(1, RECENT), (4, AFTER)]], [[(0, OPENING)]])
        heard += losses(network, batch)
    assert torch.equal(heard[0], heard[1]) and torch.equal(heard[0], heard[2])


@pytest.mark.parametrize("name", RIVALS)
def test_all_that_came_before_is_heard(sizes: ModuleType, chunks: list[np.ndarray], name: str) -> None:
    """Every note of the window, the last of each chunk too, which no step of that chunk carries."""
    network = lively(sizes, name)
    before = losses(network, sizes.plain(batch_of(chunks, [4])))[0]
    for chunk, note in ((0, 0), (0, 8), (1, 6), (3, 11)):
        other = [rows.copy() for rows in chunks]
        other[chunk][note, PITCH] = (other[chunk][note, PITCH] + 40) % FIELD_SIZES[PITCH]
        assert not torch.allclose(losses(network, sizes.plain(batch_of(other, [4])))[0], before, atol=1e-5)


@pytest.mark.parametrize("name", RIVALS)
def test_losses_do_not_depend_on_which_other_chunks_are_written(
    sizes: ModuleType, chunks: list[np.ndarray], name: str
) -> None:
    """A chunk that is only read is read as if it were written, where nothing is told of it."""
    network = lively(sizes, name)
    together = losses(network, untold(sizes, batch_of(chunks, [0, 1, 2, 3, 4])))
    for some in ([4], [1, 3], [0, 2, 4], [0]):
        parts = losses(network, untold(sizes, batch_of(chunks, some)))
        assert all(close(part, together[i]) for i, part in zip(some, parts, strict=True)), some


@pytest.mark.parametrize("name", ["lstm", "lstm_attention"])
def test_an_encoder_hears_the_same_whatever_was_told_of_other_chunks(
    sizes: ModuleType, chunks: list[np.ndarray], name: str
) -> None:
    network, batch = lively(sizes, name), batch_of(chunks, [0, 1, 2, 3, 4])
    assert close(losses(network, likelihood.last_target(batch))[0], losses(network, batch)[-1])


# ---- recurrence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("kernels", ["own", "torch's"])
def test_recurrent_layers_are_torchs_own(
    recurrence: ModuleType, kind: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, states and every gradient."""
    monkeypatch.setattr(recurrence, "kernels", kernels)
    torch.manual_seed(0)
    sequences, steps, inputs, width = 4, 7, 5, 6
    network = getattr(nn, kind)(inputs, width, 2, batch_first=kind == "LSTM")
    recurrence.begin_well(network)
    lengths = torch.tensor([3, 7, 1, 5]) if kind == "LSTM" else torch.full((4,), steps)
    x = torch.randn(sequences, steps, inputs, requires_grad=True)
    state = torch.randn(2, 2, sequences, width, requires_grad=True)
    shares = torch.randn(sequences, steps, width), torch.randn(2, 2, sequences, width)
    counts = (torch.arange(steps) < lengths[:, None])[..., None]

    def torchs() -> tuple[Tensor, Tensor]:
        if kind == "GRU":
            y, after = network(x.transpose(0, 1), state[0])
            return y.transpose(0, 1), after
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, after = network(packed, (state[0], state[1]))
        return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0], torch.stack(after)

    def own() -> tuple[Tensor, Tensor]:
        if kind == "LSTM":
            return recurrence.run_lstm(network, x, lengths, state)
        y, after = recurrence.run_gru(network, x.transpose(0, 1), state[0])
        return y.transpose(0, 1), after

    found = []
    for run in (torchs, own):
        y, after = run()
        total = (y * counts * shares[0]).sum() + (after * shares[1][: after.dim() - 2].view(-1, *after.shape)[0]).sum()
        found.append([y * counts, after, *torch.autograd.grad(total, [x, state, *network.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_recurrent_layers_begin_well(sizes: ModuleType) -> None:
    encoder = tiny(sizes, "lstm").encoder
    width = encoder.hidden_size
    assert encoder.num_layers == 2 and tiny(sizes, "gru").gru.num_layers == 2
    for layer in range(2):
        bias = (getattr(encoder, f"bias_ih_l{layer}") + getattr(encoder, f"bias_hh_l{layer}")).detach()
        forget = torch.zeros(4, width)
        forget[1] = 1.0
        assert torch.equal(bias, forget.flatten())
        for gate in getattr(encoder, f"weight_hh_l{layer}").detach().split(width):
            torch.testing.assert_close(gate @ gate.T, torch.eye(width), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", RECURRENT)
def test_truncated_back_propagation_changes_gradients_alone(sizes: ModuleType, name: str) -> None:
    batch = real_batch()
    whole, cut = (tiny(sizes, name, bptt_notes=notes) for notes in (None, 20))
    losses = [network(batch) for network in (whole, cut)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    for loss in losses:
        loss.sum().backward()
    grads = [dict(network.named_parameters())["start"].grad for network in (whole, cut)]
    assert not torch.allclose(*grads, rtol=1e-3)
    assert all(torch.isfinite(p.grad).all() for p in cut.parameters())


@pytest.mark.parametrize("name", RIVALS)
def test_a_low_precision_changes_little(sizes: ModuleType, name: str) -> None:
    batch, network = real_batch(), tiny(sizes, name)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(batch)
    low.sum().backward()
    assert low.float().mean().item() == pytest.approx(network(batch).mean().item(), rel=0.02)


# ---- training --------------------------------------------------------------------------------------------------------

NOTES, PITCHES, WINDOWS = 2, 4, 32  # of a chunk; it may have; of a batch


@pytest.fixture(scope="module")
def songs(sizes: ModuleType) -> Batch:
    """Songs of two chunks of a few notes."""
    rows = np.zeros((2 * NOTES, 8), np.int32)
    rows[:, BAR] = np.arange(2 * NOTES) * 8 // (2 * NOTES)
    rows[:, [PITCH, DURATION, VELOCITY, MICRO]] = 60, 7, 10, MICRO_CENTER
    song, beats = song_of(sort_rows(rows), 8), np.arange(9) * 4.0
    window = Window([windows.make_chunk(song, 4 * i, 4, beats, 2 - i) for i in range(2)], 0, 0, 2 * NOTES + 2)
    return sizes.plain(collate.collate([window] * WINDOWS, tiny_config().memory, 0.0, None))


def copies(songs: Batch, seed: int) -> Batch:
    """Their pitches drawn anew for each song, and each second chunk a copy of the first."""
    drawn = torch.randint(0, PITCHES, (WINDOWS, 1, NOTES), generator=torch.Generator().manual_seed(seed))
    rows = songs.rows.clone()
    rows[:, PITCH] = 60 + drawn.expand(-1, 2, -1).flatten()
    return replace(songs, rows=rows)


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_learns_to_copy_the_chunk_before(sizes: ModuleType, songs: Batch, name: str) -> None:
    """By its own memory: nothing is counted for it. Without context a pitch costs log 4; of a copy it cost a twentieth
    of that or less after 150 (LSTM), 200 (with attention), 250 (decoder only) and 350 steps (GRU)."""
    network = tiny(sizes, name)
    run = Run(network, tiny_config(lr=0.003, max_notes=10**9).train)
    first = second = float("nan")
    for step in range(600):
        run.step_on(network, [copies(songs, step)], 1)
        if step % 50 == 49:
            with torch.no_grad():
                pitches = network(copies(songs, 10**6))[:, PLACE].view(WINDOWS, 2, NOTES + 1)[:, :, 1:]
            first, second = pitches.mean((0, 2)).tolist()
            if second < 0.3 * first:
                break
    assert first > 0.9 * np.log(PITCHES)  # nothing tells these
    assert second < 0.3 * first


@pytest.mark.parametrize("name", RIVALS)
def test_training_and_judging_are_midiexs_own(sizes: ModuleType, name: str, tmp_path: Path) -> None:
    songs = [write_song(tmp_path / "songs" / f"{i}.mid", bars=16, seed=i) for i in range(3)]
    splits = [f"songs,{path.name},{'valid' if i == 2 else 'train'}" for i, path in enumerate(songs)]
    (tmp_path / "splits.csv").write_text("\n".join(["source,file,split", *splits]))
    prepare([tmp_path / "songs"], tmp_path / "shards", tmp_path / "splits.csv", jobs=1)
    config = sizes.config(name, "3M", notes_per_batch=128, max_notes=600, window_chunks=2, warmup_steps=2)
    config = replace(config, model=replace(config.model, d_model=32, n_heads=2, d_ff=32, d_head_hidden=16))
    result = train(tmp_path / "shards", tmp_path / "out", config, build=sizes.builder(name))
    assert 0 < result["pooled"] < 40
    network, found = sizes.load(tmp_path / "out")
    assert found == config and type(network) is sizes.NETWORKS[name]
    (shard,) = dataset.load_split(tmp_path / "shards", "valid")
    song = shard.song(0)
    window = windows.make_window(song, 3, 4096, 0, np.random.default_rng(0))
    nats = likelihood.nll(network, found, window)
    assert nats.shape == (8,) and (nats > 0).any() and np.isfinite(nats).all()
    question = likelihood.Question(window, (window.chunks[-1],) * 2)
    costs, more = likelihood.choose(network, found, question)
    assert costs[0] == costs[1] > 0 and np.isfinite(more).all()


class Shown(Stepper):
    """A stepper without layers: what they would be given."""

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: object) -> np.ndarray:
        return x


@pytest.mark.parametrize("name", RIVALS)
def test_a_stepper_embeds_a_rivals_steps(sizes: ModuleType, chunks: list[np.ndarray], name: str) -> None:
    network, batch = tiny(sizes, name).eval().requires_grad_(False), batch_of(chunks, [3])
    steps = Steps.build(batch)
    expected = network._embed_steps(steps, batch) - network.echoes(batch.echoes)
    beat_starts = np.arange(20) * 4.0
    task = SimpleNamespace(
        conditions=batch.conditions[0].numpy(),
        programs=batch.programs[0].numpy(),
        voices=batch.voices[0].numpy(),  # type: ignore[index]
        beat_starts=beat_starts,
        first_bar=0,
        bar_beats=np.full(20, 4.0),
    )
    stepper = Shown(network, task, 1)  # type: ignore[arg-type]
    for i in range(len(chunks[3]) + 1):
        previous = steps.previous[i : i + 1].numpy() if i >= 2 else None
        onset = steps.onset[i : i + 1].numpy() if i >= 1 else None
        got = stepper.step(previous, onset, batch.echoes[i : i + 1].numpy())
        np.testing.assert_allclose(got, expected[i : i + 1].numpy(), rtol=1e-4, atol=1e-5)
