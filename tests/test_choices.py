"""Mixing the network's opinion with the song's habits: every probability by hand, and that they sum to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import lively_model, random_rows, tiny_config
from songs import rows_of, told_of

from midiex.choices import Choices, told_more
from midiex.decoding import POSITION_HEAD
from midiex.habits import HABITS, STAYS, SYMBOLS, Habits, Told
from midiex.model import ChunkTransformer
from midiex.occurrences import bucket_of
from midiex.tokens import BAR, FIELD_SIZES, FIELDS, HEAD_ORDER, PITCH, POSITION, PROGRAM, moved


def states_of(model: ChunkTransformer, count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return model.heads.states(torch.randn(count, model.size.d_model, generator=generator))


def mixed_by_hand(
    choices: Choices, head: int, states: tuple[torch.Tensor, ...], chosen: torch.Tensor, told: list[Told], bar: int
) -> np.ndarray:
    """Probabilities (K, n) of the next values: what the network and each context expect, by the trust in each."""
    heads, name = choices.heads, HEAD_ORDER[head]
    features = heads.features(head, states, chosen)
    mixed = torch.softmax(heads.out[head](features).double(), 1).numpy()
    for k, (habits, columns) in enumerate(zip(choices.habits, told, strict=True)):
        counted = list(habits.seen(name, columns)) if columns else [({}, 0)] * len(HABITS[name])
        seen = np.array([[sum(symbols.values()) for symbols, _ in counted]])
        bucket = bucket_of(seen, np.array([[len(symbols) for symbols, _ in counted]]))
        known = (torch.from_numpy(values) for values in (bucket, habits.levels(name)[None]))
        trust = heads.trust(head, features[k : k + 1], *known).exp().double().numpy()[0]
        elsewhere = np.where(np.arange(mixed.shape[1]) == bar, 0, mixed[k])
        elsewhere /= elsewhere.sum()
        mixed[k] *= trust[0]
        for (symbols, start), share in zip(counted, trust[1:] / np.maximum(1, seen[0]), strict=True):
            for symbol, times in symbols.items():
                if name != BAR:
                    value = (symbol + start) % SYMBOLS
                    mixed[k, value : value + 1] += share * times  # no such value: lost
                elif symbol == STAYS:
                    mixed[k, bar] += share * times
                else:
                    mixed[k] += share * times * elsewhere
    return mixed


@torch.inference_mode()
@pytest.mark.parametrize("head", range(8), ids=[FIELDS[name] for name in HEAD_ORDER])
@pytest.mark.parametrize("seed", range(3))
def test_choices_mix_the_network_with_what_the_song_did(head: int, seed: int) -> None:
    """For candidates that have gone different ways after one song, for one that is finished, and after no song."""
    model, rng, name = lively_model(tiny_config(), seed), np.random.default_rng(seed), HEAD_ORDER[head]
    rows = random_rows(rng, 60, bars=8)
    rows[:, POSITION] = rows[:, POSITION] // 12 * 12  # so that it repeats itself
    before = Habits()
    for row in rows:
        before.hear(row)
    of_each = [*(Habits(before) for _ in range(4)), Habits()]
    for k, habits in enumerate(of_each[:4]):
        for row in rows[:k]:
            habits.hear(moved(row[None], 8)[0])
    coming = moved(rows[4:5], 8)[0].tolist()
    told = [{} if k == 3 else told_of(habits, name, coming) for k, habits in enumerate(of_each)]
    choices = Choices(model.heads, of_each, 0.0)
    states = states_of(model, 5, seed)
    chosen = model.heads.choose(0, torch.full((5,), coming[PROGRAM]), None)
    found = np.exp(choices.log_p(head, states, chosen, told, np.full(5, 2)))
    expected = mixed_by_hand(choices, head, states, chosen, told, bar=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    if name == POSITION:  # the same way ahead may lead out of what can be written
        assert (found.sum(1) < 1 + 1e-5).all()
    else:
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    alone = torch.softmax(model.heads.out[head](model.heads.features(head, states, chosen)), 1).numpy()
    np.testing.assert_allclose(found[3], alone[3], rtol=1e-4, atol=1e-7)
    assert not np.allclose(found[:3], alone[:3], rtol=0.1)


@torch.inference_mode()
@pytest.mark.parametrize(("at", "is_possible"), [(0, True), (45, True), (60, False)])
def test_a_way_ahead_is_lost_only_where_it_leads_too_far(at: int, is_possible: bool) -> None:
    """Three notes in a row and then 40 positions on: the same from 45 is just possible, from 60 beyond any bar."""
    model = lively_model(tiny_config())
    habits = Habits()
    for row in rows_of(*[(0, p, 0, 60) for p in (0, 5, 10, 50)], *[(1, at + p, 0, 60) for p in (0, 5, 10)]):
        habits.hear(row)
    told = habits.behind(bar=1)
    states = states_of(model, 1)
    total = np.exp(Choices(model.heads, [habits], 0.0).log_p(POSITION_HEAD, states, None, [told])).sum()
    assert (total > 1 - 1e-5) == is_possible and 0 < total < 1 + 1e-5


def test_what_is_told_grows_with_what_is_chosen() -> None:
    """Up to each field the same as is told of a note that is known as a whole; and nothing of one that is over."""
    of_each = [Habits(), Habits()]
    for row in rows_of((0, 0, 0, 60), (0, 0, 40, 64), (0, 12, 0, 62)):
        of_each[0].hear(row)
    note = np.zeros((2, len(FIELD_SIZES)), np.int64)
    row = rows_of((0, 12, 40, 67))[0].tolist()
    told = [of_each[0].coming(0, 12), {}]
    for name in HEAD_ORDER[:-2]:
        assert told == [told_of(of_each[0], name, row), {}]
        note[:, name] = row[name]
        told = told_more(of_each, told, name, note)


def test_habits_may_weigh_more() -> None:
    """As much more as is said, beside the network, whose own choices keep their proportions."""
    model = lively_model(tiny_config())
    bucket, level = torch.full((1, len(HABITS[PITCH])), 7), torch.zeros(1, len(HABITS[PITCH]), dtype=torch.int64)
    head, features = HEAD_ORDER.index(PITCH), torch.randn(1, model.heads.width)
    with torch.no_grad():
        plain, more = (model.heads.trust(head, features, bucket, level, nats)[0] for nats in (0.0, 1.5))
    assert torch.allclose(more[1:] - more[0], plain[1:] - plain[0] + 1.5, atol=1e-5)
    assert more.exp().sum().item() == pytest.approx(1)
