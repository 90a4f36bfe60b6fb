"""The network: what each decision may know and may not, memory of a fixed size, gradients everywhere, no recurrence."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import lively_model, model_batch, random_rows, random_song, tiny_config, window_chunks
from songs import network_alone, rows_of
from torch import Tensor, nn

import midiex
from midiex import collate, windows
from midiex.conditions import VOICE_INSTANCES
from midiex.config import Config, MemoryConfig, load_config
from midiex.habits import FIRST_CONTEXT, HABITS, LEVELS
from midiex.layers import END, HEAD_SIZES, CrossAttention, Packing, opinions_of, rotate
from midiex.model import (
    AFTER,
    NOTHING,
    OPENING,
    RECALLED,
    RECENT,
    SOURCE,
    STANDING,
    SUMMARY,
    Batch,
    ChunkTransformer,
    MemoryLayout,
    Steps,
)
from midiex.occurrences import BUCKETS
from midiex.tokens import (
    BAR,
    DURATION,
    FIELD_SIZES,
    FIELDS,
    HEAD_ORDER,
    INSTANCE,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)
from midiex.train import multiplies_bf16

N_NOTES = 12
OF_THIS_NOTE = tuple(f for f in range(8) if f not in (BAR, POSITION))


@pytest.fixture
def chunks() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [random_rows(rng, 60, bars=4)[::3][:n] for n in (N_NOTES, 7, N_NOTES, 9, 15)]


def standard_batch(chunks: list[np.ndarray]) -> Batch:
    """Chunks 2 and 3 are written, with every kind of memory among them but STANDING, and the second goes back to chunk
    0; chunk 4 is in nobody's memory but AFTER's."""
    return model_batch(
        chunks,
        target=[2, 3],
        full=[[(1, RECENT)], [(2, RECENT), (1, RECALLED), (4, AFTER), (0, SOURCE)]],
        summaries=[[(0, OPENING)], [(0, OPENING), (1, SUMMARY)]],
        goes_back={3: 0},
    )


@torch.no_grad()
def losses(model: ChunkTransformer, batch: Batch) -> list[Tensor]:
    """Losses of each written chunk, each (steps, 8)."""
    return list(model(batch).split((batch.lengths[batch.target] + 1).tolist()))


def changed(rows: np.ndarray, note: int, field: int) -> np.ndarray:
    """Rows with one field of one note changed to another possible value; their order no longer matters here."""
    out = rows.copy()
    low, high = (0, 4) if field == BAR else (0, FIELD_SIZES[field])
    out[note, field] = low + (out[note, field] - low + 1 + (high - low) // 3) % (high - low)
    assert out[note, field] != rows[note, field]
    return out


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-5)


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_losses_are_one_row_a_step_and_one_column_a_head(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    batch = standard_batch(chunks)
    out = model(batch)
    assert out.shape == (N_NOTES + 1 + 9 + 1, 8)
    assert torch.isfinite(out).all() and (out >= 0).all()
    bar, position = HEAD_ORDER.index(BAR), HEAD_ORDER.index(POSITION)
    for per_chunk in losses(model, batch):
        decided = per_chunk > 0
        assert decided[1:, :bar].all() and not decided[0, :bar].any()  # step 0 writes no note
        assert decided[:, bar].all()
        assert decided[:-1, position].all() and not decided[-1, position]  # the end has no position


def test_head_sizes_are_the_fields_and_one_end() -> None:
    assert sorted(HEAD_ORDER) == list(range(8))
    assert all(size == FIELD_SIZES[f] + (f == BAR) for f, size in zip(HEAD_ORDER, HEAD_SIZES, strict=True))


def test_a_fresh_model_is_close_to_even_odds(chunks: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    per_note = losses(network_alone(ChunkTransformer(tiny_config())).eval(), standard_batch(chunks))[0][1:-1].mean(0)
    torch.testing.assert_close(per_note, torch.tensor(HEAD_SIZES).log(), rtol=0.1, atol=0.1)


def test_steps_are_teacher_forced_with_the_onset_ahead(chunks: list[np.ndarray]) -> None:
    batch = standard_batch(chunks)
    steps = Steps.build(batch)
    rows = torch.from_numpy(chunks[2].astype(np.int64))
    targets = steps.targets[: N_NOTES + 1]
    assert (targets[0, :6] == -1).all() and targets[0, 6:].tolist() == rows[0, [BAR, POSITION]].tolist()
    for i in range(1, N_NOTES + 1):
        assert targets[i, :6].tolist() == rows[i - 1, list(HEAD_ORDER[:6])].tolist()
        assert steps.onset[i].tolist() == rows[i - 1, [BAR, POSITION]].tolist()
        if i >= 2:
            assert steps.previous[i].tolist() == rows[i - 2].tolist()
        following = rows[i, [BAR, POSITION]].tolist() if i < N_NOTES else [END, -1]
        assert targets[i, 6:].tolist() == following
    notes_before = len(chunks[0]) + len(chunks[1])
    assert steps.query_times[0].tolist() == batch.starts[2].tolist() == steps.key_times[1].tolist()
    assert steps.query_times[1].tolist() == batch.times[notes_before].tolist() == steps.key_times[2].tolist()


# ---- what a decision may know ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", range(8), ids=FIELDS)
@pytest.mark.parametrize("note", [0, 5, N_NOTES - 1])
def test_no_decision_sees_what_is_written_after_it(
    model: ChunkTransformer, chunks: list[np.ndarray], note: int, field: int
) -> None:
    """Note i (from 0) is written at step i + 1 in HEAD_ORDER, its onset at step i."""
    before = losses(model, standard_batch(chunks))[0]
    after = losses(model, standard_batch([*chunks[:2], changed(chunks[2], note, field), *chunks[3:]]))[0]
    step = note + 1 if field in OF_THIS_NOTE else note
    head = HEAD_ORDER.index(field)
    assert same(before[:step], after[:step])
    assert same(before[step, :head], after[step, :head])
    assert not same(before[step, head], after[step, head])  # the decision itself
    if step < N_NOTES:
        assert not same(before[step + 1 :], after[step + 1 :])  # and all that comes after knows


def test_decisions_within_a_note_know_the_fields_before(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    before = losses(model, standard_batch(chunks))[0]
    for field in OF_THIS_NOTE:
        after = losses(model, standard_batch([*chunks[:2], changed(chunks[2], 5, field), *chunks[3:]]))[0]
        for head in range(HEAD_ORDER.index(field) + 1, 8):
            assert not torch.equal(before[6, head], after[6, head]), (FIELDS[field], FIELDS[HEAD_ORDER[head]])


def test_a_chunk_appended_to_gives_the_same_losses_up_to_there(
    model: ChunkTransformer, chunks: list[np.ndarray]
) -> None:
    whole = losses(model, standard_batch(chunks))[0]
    part = losses(model, standard_batch([*chunks[:2], chunks[2][:6], *chunks[3:]]))[0]
    bar = HEAD_ORDER.index(BAR)
    assert same(whole[:6], part[:6]) and same(whole[6, :bar], part[6, :bar])
    assert not same(whole[6, bar], part[6, bar])  # one goes on, the other ends


def test_only_what_is_in_memory_counts(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    first, second = losses(model, standard_batch(chunks))
    other = random_rows(np.random.default_rng(9), 80, bars=4)
    for index, (in_first, in_second) in {0: (True, True), 1: (True, True), 4: (False, True)}.items():
        for replacement in (changed(chunks[index], 3, PITCH), other[:20], chunks[index][:0]):
            moved = [*chunks]
            moved[index] = replacement
            a, b = losses(model, standard_batch(moved))
            assert same(a, first) != in_first, index
            assert same(b, second) != in_second, index


def test_the_chunk_being_written_is_not_in_its_own_memory(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    """Chunk 3 is among the encoded chunks; were it in its own memory, its last note would be known from the start."""
    before = losses(model, standard_batch(chunks))[1]
    rows = chunks[3].copy()
    for field in OF_THIS_NOTE:
        rows = changed(rows, 8, field)
    after = losses(model, standard_batch([*chunks[:3], rows, chunks[4]]))[1]
    assert same(before[:9], after[:9]) and not same(before[9], after[9])


@pytest.mark.parametrize(
    "what",
    [
        "full_kind",
        "summary_kind",
        "conditions",
        "programs",
        "voices",
        "starts",
        "times",
        "echoes",
        "habit_share",
        "habit_bucket",
        "habit_level",
        "aligned_share",
        "aligned_bucket",
    ],
)
def test_every_part_of_a_batch_is_heard(model: ChunkTransformer, chunks: list[np.ndarray], what: str) -> None:
    before = losses(model, standard_batch(chunks))[1]
    batch = standard_batch(chunks)
    value = getattr(batch, what)
    if what == "full_kind":
        value[1, 0] = RECENT + 1
    elif what == "summary_kind":
        value[1, 0] = SUMMARY
    elif what == "conditions":
        value[1, 4] += 1
    elif what == "programs":
        value[1, 60] = 1
    elif what == "voices":
        value[1, 60 * VOICE_INSTANCES + 2] = 1
    elif what == "starts":
        value[0] += 1.3  # of chunk 0, in memory as a summary
    elif what == "echoes":
        value[N_NOTES + 1 :] = value[N_NOTES + 1 :].flip(0)
    elif what in ("habit_share", "aligned_share"):
        value[:] = 1 - value
    elif what in ("habit_bucket", "aligned_bucket"):
        value[value > 0] += 1
    elif what == "habit_level":
        value[:] = LEVELS - 1 - value
    else:
        value[len(chunks[0]) + len(chunks[1])] += 0.7
    assert not same(before, losses(model, batch)[1])


@pytest.mark.parametrize("kind", [NOTHING, SUMMARY, OPENING, RECALLED, AFTER, SOURCE, STANDING, RECENT + 1])
def test_what_a_memory_row_is_to_a_chunk_is_heard(model: ChunkTransformer, chunks: list[np.ndarray], kind: int) -> None:
    batch = standard_batch(chunks)
    before = losses(model, batch)[1]
    batch.full_kind[1, 0] = kind  # where RECENT stood
    assert not same(before, losses(model, batch)[1])


def later_losses(model: ChunkTransformer, chunks: list[np.ndarray], beats: float, bars: float) -> list[Tensor]:
    """Losses of a batch, and of the same with the whole song so much later."""
    batch = standard_batch(chunks)
    shift = torch.tensor([beats, bars])
    moved = replace(batch, times=batch.times + shift, starts=batch.starts + shift)
    return [torch.cat(losses(model, batch)), torch.cat(losses(model, moved))]


def test_a_song_is_the_same_after_whole_turns_of_all_angles(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    here, later = later_losses(model, chunks, 256, 64)
    torch.testing.assert_close(here, later, rtol=1e-3, atol=1e-3)


def test_a_song_is_the_same_a_bar_later(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    here, later = later_losses(model, chunks, 4, 1)
    torch.testing.assert_close(here, later, rtol=1e-3, atol=1e-3)


def test_but_for_the_empty_row_a_song_is_the_same_a_bar_later(config: Config, chunks: list[np.ndarray]) -> None:
    model = lively_model(config)
    with torch.no_grad():
        for cross in (module for module in model.modules() if isinstance(module, CrossAttention)):
            cross.nothing[0, :, : 2 * cross.pairs] = 0
    here, later = later_losses(model, chunks, 4, 1)
    torch.testing.assert_close(here, later, rtol=1e-3, atol=1e-3)


def test_turning_keeps_lengths_and_knows_differences_only() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 16, generator=generator)
    angles = torch.randn(6, 1, 4, generator=generator)

    def turned(x: Tensor, a: Tensor) -> Tensor:
        return rotate(x, a.cos(), a.sin())

    torch.testing.assert_close(turned(query, angles[0]).norm(), query.norm())
    plain = (turned(query, angles[0]) * turned(key, angles[1])).sum()
    shifted = (turned(query, angles[0] + angles[2]) * turned(key, angles[1] + angles[2])).sum()
    torch.testing.assert_close(plain, shifted)
    assert not torch.allclose(plain, (query * key).sum())


# ---- the song's habits ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("head", range(8), ids=[FIELDS[name] for name in HEAD_ORDER])
def test_trust_is_shared_among_the_network_the_contexts_met_and_a_source(model: ChunkTransformer, head: int) -> None:
    generator = torch.Generator().manual_seed(head)
    features = torch.randn(40, model.heads.width, generator=generator)
    bucket = torch.randint(0, BUCKETS, (40, opinions_of(HEAD_ORDER[head])), generator=generator)
    bucket[torch.rand(bucket.shape, generator=generator) < 0.3] = 0
    bucket[0] = 0
    level = torch.randint(0, LEVELS, bucket.shape, generator=generator)
    trust = model.heads.trust(head, features, bucket, level).exp()
    torch.testing.assert_close(trust.sum(1), torch.ones(40))
    assert ((trust[:, 1:] > 0) == (bucket > 0)).all() and (trust[:, 0] > 0).all()
    assert trust[0, 0] == 1  # where nothing is known of the song the network decides
    more = torch.where(bucket > 0, (bucket + 1) % BUCKETS, 0)
    for other in ((-features, bucket, level), (features, more, level), (features, bucket, LEVELS - 1 - level)):
        assert not same(trust, model.heads.trust(head, *other).exp())


def test_contexts_that_were_never_met_say_nothing(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    batch = standard_batch(chunks)
    unmet = batch.habit_bucket == 0
    assert unmet.any() and not unmet.all()
    betrayed = replace(batch, habit_share=torch.where(unmet, 1.0, batch.habit_share))
    assert torch.equal(model(batch), model(betrayed))


def test_a_source_that_has_nothing_there_says_nothing(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    batch = standard_batch(chunks)
    assert batch.aligned_share is not None and batch.aligned_bucket is not None
    silent = batch.aligned_bucket == 0
    assert silent.any() and not silent.all()
    betrayed = replace(batch, aligned_share=torch.where(silent, 1.0, batch.aligned_share))
    assert torch.equal(model(batch), model(betrayed))


def test_with_all_trust_in_a_source_what_it_has_costs_nothing_and_all_else_everything(config: Config) -> None:
    """But of bars it tells only whether the next note is in the same one: to which other, the network says."""
    rows = rows_of((0, 0, 0, 60), (0, 12, 0, 62), (1, 0, 0, 64), (1, 12, 0, 65))
    other = rows.copy()
    other[1, PITCH], other[3, VELOCITY] = 61, 5
    batch = model_batch([other, rows], [1], [[]], [[]], goes_back={1: 0})
    model = ChunkTransformer(config)
    with torch.no_grad():
        for name, gate, bucket in zip(HEAD_ORDER, model.heads.gate, model.heads.bucket, strict=True):
            gate.bias[0] = -1000.0
            gate.bias[-1] = 1000.0
            assert len(bucket.weight) == BUCKETS * (len(HABITS[name]) + 1)
    cost = losses(model, replace(batch, habit_bucket=torch.zeros_like(batch.habit_bucket)))[0]
    heads = {name: head for head, name in enumerate(HEAD_ORDER)}
    sure = [heads[name] for name in (PROGRAM, INSTANCE, DURATION, MICRO)]
    torch.testing.assert_close(cost[1:, sure], torch.zeros(4, 4))
    assert (cost[1:, heads[PITCH]] > 100).tolist() == [False, True, False, False]
    assert (cost[1:, heads[VELOCITY]] > 100).tolist() == [False, False, False, True]
    assert (cost[:-1, heads[POSITION]] == 0).all()
    stays = cost[1:, heads[BAR]]
    assert stays[[0, 2]].tolist() == [0, 0] and ((stays[[1, 3]] > 1) & (stays[[1, 3]] < 5)).all()


def test_a_network_alone_is_one_that_knows_no_song(config: Config, chunks: list[np.ndarray]) -> None:
    batch = standard_batch(chunks)
    assert batch.aligned_bucket is not None and batch.aligned_bucket.any()
    nothing = {name: torch.zeros_like(getattr(batch, name)) for name in ("habit_bucket", "aligned_bucket")}
    without = replace(batch, **nothing)
    model = lively_model(config)
    expected = model(without)
    assert not same(expected, model(batch))
    torch.testing.assert_close(network_alone(model)(batch), expected)


def test_with_all_trust_in_habits_a_decision_costs_the_logarithm_of_their_share(
    config: Config, chunks: list[np.ndarray]
) -> None:
    model = ChunkTransformer(config)  # a fresh one trusts all contexts alike
    with torch.no_grad():
        for gate in model.heads.gate:
            gate.bias[0] = -1000.0
    batch = standard_batch(chunks)
    known = torch.ones_like(batch.habit_bucket)
    share = torch.full_like(batch.habit_share, 0.25)
    share[:, ::2] = 0.75
    cost = losses(model, replace(batch, habit_share=share, habit_bucket=known))[0]
    for head, name in enumerate(HEAD_ORDER):
        if name != BAR:  # of which habits tell but part
            expected = -share[0, FIRST_CONTEXT[name] :][: len(HABITS[name])].mean().log()
            torch.testing.assert_close(cost[1:-1, head], expected.expand(N_NOTES - 1))


def test_of_bars_habits_tell_only_whether_the_next_note_is_in_another(config: Config) -> None:
    """To which other bar it goes, or that it ends, the network says among those: here it finds all of them alike."""
    rows = rows_of((0, 0, 0, 60), (0, 12, 0, 62), (2, 0, 0, 64))
    batch = model_batch([rows], [0], [[]], [[]])
    model = ChunkTransformer(config)
    with torch.no_grad():
        model.heads.gate[HEAD_ORDER.index(BAR)].bias[0] = -1000.0
        for weight in model.heads.out.parameters():
            weight.zero_()
    batch = replace(
        batch, habit_share=torch.full_like(batch.habit_share, 0.25), habit_bucket=torch.ones_like(batch.habit_bucket)
    )
    cost = losses(model, batch)[0][:, HEAD_ORDER.index(BAR)]
    others = FIELD_SIZES[BAR]  # all bars but this one, and the end
    torch.testing.assert_close(cost[1:], -torch.tensor([0.25, 0.25 / others, 0.25 / others]).log())


def test_gates_learn_to_trust_a_song_that_repeats_itself() -> None:
    """Nothing else learns; and songs are foreseen by what they did that the gates have never seen."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = ChunkTransformer(tiny_config())

    def song() -> Batch:
        rows = random_rows(rng, 15, bars=4)
        return model_batch([rows] * 3, [1, 2], [[(0, RECENT)], [(1, RECENT)]], [[], [(0, OPENING)]])

    asked = song()
    unknown = replace(asked, habit_bucket=torch.zeros_like(asked.habit_bucket))
    untaught = float(model(asked).detach().sum())
    gates = [model.heads.gate, model.heads.bucket, model.heads.level]
    optimizer = torch.optim.Adam([weight for gate in gates for weight in gate.parameters()], lr=0.03)
    for _ in range(30):
        optimizer.zero_grad()
        model(song()).mean().backward()
        optimizer.step()
    taught, without = (float(model(batch).detach().sum()) for batch in (asked, unknown))
    assert taught < 0.5 * untaught and taught < 0.1 * without


# ---- encoder and memory ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_chunk_is_encoded_alike_alone_and_in_a_batch(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    batch = standard_batch([*chunks[:4], chunks[4][:0]])
    together, times, packing = model.encode(batch.rows, batch.lengths, batch.times, batch.starts)
    summaries = model.size.summary_rows
    assert together.shape == (len(batch.rows) + 5 * summaries, model.size.d_model)
    edges = np.concatenate([[0], np.cumsum(batch.lengths)])
    for i, part in enumerate(together.split((batch.lengths + summaries).tolist())):
        rows = slice(edges[i], edges[i + 1])
        alone, alone_times, _ = model.encode(
            batch.rows[rows], batch.lengths[i : i + 1], batch.times[rows], batch.starts[i : i + 1]
        )
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(times[packing.owner == i], alone_times)
        assert (alone_times[:summaries] == batch.starts[i]).all()


def test_the_encoder_looks_both_ways(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    batch = model_batch(chunks[:1], [0], [[]], [[]])
    other = model_batch([changed(chunks[0], N_NOTES - 1, PITCH)], [0], [[]], [[]])
    with torch.no_grad():
        a, b = (model.encode(x.rows, x.lengths, x.times, x.starts)[0] for x in (batch, other))
    assert not (a - b).abs().sum(1).eq(0).any()  # every row, summaries too, knows the last note


def test_memory_has_a_fixed_size_however_long_the_song() -> None:
    """Two recent chunks, a recalled one and a bounded number of summaries, from chunk 100 as from chunk 30."""
    config = tiny_config()
    memory, rows = config.memory, config.model.summary_rows
    long = window_chunks(np.random.default_rng(0), 100)
    longest = max(len(c.rows) for c in long) + rows
    most = (memory.recent_chunks + 1) * longest + memory.summary_chunks * rows
    sizes = []
    for target in (30, 60, 99):
        full, summaries = collate.memory_slots(long, target, 0, memory, None)
        batch = model_batch([c.rows for c in long], [target], [full], [summaries])
        layout = MemoryLayout.build(batch, Packing(batch.lengths + rows), rows)
        assert layout.mask.shape == (1, 1, 1, layout.kinds.shape[1] + 1)
        sizes.append(layout.kinds.shape[1])
    assert sizes[0] == sizes[1] == sizes[2] == most


def test_memory_rows_and_kinds_are_those_of_the_slots(chunks: list[np.ndarray]) -> None:
    rows = 2
    batch = standard_batch(chunks)
    packing = Packing(batch.lengths + rows)
    layout = MemoryLayout.build(batch, packing, rows)
    tagged = torch.stack([packing.owner, packing.row], 1).float()  # (N, 2): what each encoded row is
    found = layout.gather(tagged, packing)
    rows_of_both = torch.cat([found, layout.kinds[..., None]], 2).int()  # (B, M, 3): chunk, row in it, kind
    seen = [[tuple(row) for row in rows_of_both[b, layout.mask[b, 0, 0, 1:]].tolist()] for b in range(2)]
    n = [len(c) + rows for c in chunks]
    assert layout.mask[:, 0, 0, 0].all()  # the empty row
    assert seen[0] == [(1, r, RECENT) for r in range(n[1])] + [(0, r, OPENING) for r in range(rows)]
    assert seen[1] == [
        *((2, r, RECENT) for r in range(n[2])),
        *((1, r, RECALLED) for r in range(n[1])),
        *((4, r, AFTER) for r in range(n[4])),
        *((0, r, SOURCE) for r in range(n[0])),
        *((0, r, OPENING) for r in range(rows)),
        *((1, r, SUMMARY) for r in range(rows)),
    ]


def test_empty_chunks_and_empty_memory_work(model: ChunkTransformer, chunks: list[np.ndarray]) -> None:
    nothing = chunks[0][:0]
    alone = model_batch([chunks[0]], [0], [[]], [[]])
    assert (alone.full == -1).all() and (alone.full_kind == NOTHING).all()
    everywhere_empty = model_batch([nothing, nothing], [0, 1], [[], [(0, RECENT)]], [[], [(0, OPENING)]])
    mixed = model_batch([nothing, chunks[0], nothing], [0, 1, 2], [[], [(0, RECENT)], [(1, RECENT)]], [[], [], []])
    for batch, steps in ((alone, [N_NOTES + 1]), (everywhere_empty, [1, 1]), (mixed, [1, N_NOTES + 1, 1])):
        trained = lively_model(tiny_config())
        out = trained(batch)
        assert [len(part) for part in losses(model, batch)] == steps and torch.isfinite(out).all()
        out.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in trained.parameters() if p.grad is not None)
    end = losses(model, everywhere_empty)[0]
    assert end.count_nonzero() == 1 and end[0, HEAD_ORDER.index(BAR)] > 0  # one decision: to end at once
    assert same(losses(model, mixed)[0], end)


def test_packing_goes_there_and_back() -> None:
    lengths = torch.tensor([2, 0, 3])
    packing = Packing(lengths)
    rows = torch.arange(10.0).view(5, 2).requires_grad_()
    padded = packing.pad(rows)
    assert padded.shape == (3, 3, 2)
    assert padded[0].tolist() == [[0, 1], [2, 3], [0, 0]] and not padded[1].any()
    assert packing.owner.tolist() == [0, 0, 2, 2, 2] and packing.row.tolist() == [0, 1, 0, 1, 2]
    packed = packing.pack(padded)
    assert torch.equal(packed, rows)
    (packed * torch.arange(5)[:, None]).sum().backward()
    assert rows.grad is not None and rows.grad[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_gradients_of_packing_are_right() -> None:
    packing = Packing(torch.tensor([2, 1, 3]))
    rows = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    padded = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(packing.pad, (rows,))
    assert torch.autograd.gradcheck(packing.pack, (padded,))


# ---- training and shape ---------------------------------------------------------------------------------------------


def test_every_parameter_gets_a_gradient(config: Config, chunks: list[np.ndarray]) -> None:
    model = lively_model(config)
    # a song that repeats itself: every context is met again, and so is the source
    model(standard_batch([chunks[4]] * 5)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    heads = model.heads
    for field, gate, bucket, level in zip(HEAD_ORDER, heads.gate, heads.bucket, heads.level, strict=True):
        for rows in (gate.weight.grad, bucket.weight.grad.view(-1, BUCKETS), level.weight.grad.view(-1, LEVELS)):
            assert (rows.abs().sum(1) > 0).all(), FIELDS[field]  # of each context; of the gate also the network's own


def test_gradients_agree_with_finite_differences(config: Config, chunks: list[np.ndarray]) -> None:
    model = lively_model(config).double()
    batch = standard_batch(chunks)
    real = ("times", "starts", "programs", "voices")
    batch = replace(batch, **{name: getattr(batch, name).double() for name in real})
    model(batch).double().sum().backward()
    generator = torch.Generator().manual_seed(1)
    step, predicted, found = 1e-4, 0.0, 0.0
    with torch.no_grad():
        ways = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in model.parameters()]
        for way, parameter in zip(ways, model.parameters(), strict=True):
            assert parameter.grad is not None
            predicted += float((way * parameter.grad).sum())
        for sign in (1, -1):
            for way, parameter in zip(ways, model.parameters(), strict=True):
                parameter.add_(way, alpha=step * (1 if sign > 0 else -2))
            found += sign * float(model(batch).double().sum()) / (2 * step)
    assert found == pytest.approx(predicted, rel=1e-2)


@pytest.mark.parametrize(("size", "least", "most"), [("tiny", 0.1e6, 1e6), ("small", 8e6, 18e6), ("base", 25e6, 45e6)])
def test_shipped_sizes_have_the_parameters_they_claim(size: str, least: float, most: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in ChunkTransformer(load_config(size)).parameters())
    assert least < count < most


def test_the_number_of_recent_chunks_is_free(chunks: list[np.ndarray]) -> None:
    config = replace(tiny_config(), memory=MemoryConfig(recent_chunks=4, summary_chunks=2))
    recent = [[(i, RECENT + 3 - i) for i in range(4)]]
    assert torch.isfinite(lively_model(config)(model_batch(chunks, [4], recent, [[]]))).all()


def test_there_is_no_recurrent_layer_anywhere() -> None:
    recurrent = {"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "RNNBase", "RNNCellBase"}
    for path in sorted(Path(midiex.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            imported = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
            assert not recurrent & {name, *imported}, path
    model = ChunkTransformer(tiny_config())
    assert not any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules())


def test_fields_keep_their_places() -> None:
    """Weights on disk depend on these."""
    places = [BAR, POSITION, MICRO, PROGRAM, INSTANCE, PITCH, DURATION, VELOCITY]
    assert places == list(range(8))
    assert HEAD_ORDER == (PROGRAM, INSTANCE, PITCH, DURATION, VELOCITY, MICRO, BAR, POSITION)


@pytest.mark.parametrize("bar", [0, 300])
def test_rotary_angles_keep_float32_under_bf16(model: ChunkTransformer, bar: int) -> None:
    times = torch.tensor([[4.0 * bar, bar], [4.0 * bar + 0.25, bar + 1 / 16]])
    exact = model.rotary(times)
    with torch.autocast("cpu", torch.bfloat16):
        told = model.rotary(times)
    assert all(torch.equal(a, b) for a, b in zip(exact, told, strict=True))


@pytest.mark.skipif(not multiplies_bf16(torch.device("cpu")), reason="this processor multiplies no bf16 in hardware")
def test_losses_in_bf16_are_those_in_float32(config: Config) -> None:
    rng = np.random.default_rng(0)
    song = random_song(rng, bars=400, notes_per_bar=8)
    shown = windows.make_window(song, 6, 4096, 0, np.random.default_rng(5))
    batch = collate.collate([shown], config.memory, 0.0, None)
    model = ChunkTransformer(config).eval()
    notes = int(batch.lengths[batch.target].sum())
    with torch.inference_mode():
        exact = float(model(batch).sum()) / notes
        with torch.autocast("cpu", torch.bfloat16):
            rounded = float(model(batch).sum()) / notes
    assert rounded == pytest.approx(exact, abs=0.005)
