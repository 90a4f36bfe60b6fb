"""Mixing the network's opinion with the song's habits: every probability by hand, and that they sum to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import lively_model, random_rows, tiny_config
from songs import rows_of, told_of

from midiex.aligned import LIKENESS_BINS, NOTHING_SAID, Says, bucket_of
from midiex.choices import Choices, told_more
from midiex.decoding import POSITION_HEAD
from midiex.habits import HABITS, STAYS, SYMBOLS, Habits, Told
from midiex.layers import Heads
from midiex.model import ChunkTransformer
from midiex.occurrences import bucket_of as bucket_of_counts
from midiex.recalled import Recalled
from midiex.tokens import BAR, FIELD_SIZES, FIELDS, HEAD_ORDER, PITCH, POSITION, PROGRAM, moved


def states_of(model: ChunkTransformer, count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return model.heads.states(torch.randn(count, model.size.d_model, generator=generator))


def together(states: tuple[torch.Tensor, ...]) -> np.ndarray:
    return torch.cat(states, 1).detach().numpy()


def mixed_by_hand(
    heads: Heads,
    habits: Habits,
    head: int,
    states: tuple[torch.Tensor, ...],
    chosen: torch.Tensor,
    told: list[Told],
    bar: int,
) -> np.ndarray:
    """Probabilities (K, n) of the next values: what the network and each context expect, by the trust in each."""
    name = HEAD_ORDER[head]
    features = heads.features(head, states, chosen)
    mixed = torch.softmax(heads.out[head](features).double(), 1).numpy()
    for k, columns in enumerate(told):
        counted = list(habits.seen(name, columns)) if columns else [({}, 0)] * len(HABITS[name])
        seen = np.array([[sum(symbols.values()) for symbols, _ in counted]])
        bucket = bucket_of_counts(seen, np.array([[len(symbols) for symbols, _ in counted]]))
        with_source = ((0, 0), (0, 1))  # which says nothing
        known = (torch.from_numpy(np.pad(of, with_source)) for of in (bucket, habits.levels(name)[None]))
        trust = heads.trust(head, features[k : k + 1], *known).exp().double().numpy()[0]
        elsewhere = np.where(np.arange(mixed.shape[1]) == bar, 0, mixed[k])
        elsewhere /= elsewhere.sum()
        mixed[k] *= trust[0]
        for (symbols, start), share in zip(counted, trust[1:-1] / np.maximum(1, seen[0]), strict=True):
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
    """For candidates that have gone different ways after one song, and for one that is finished."""
    model, rng, name = lively_model(tiny_config(), seed), np.random.default_rng(seed), HEAD_ORDER[head]
    rows = random_rows(rng, 60, bars=8)
    rows[:, POSITION] = rows[:, POSITION] // 12 * 12  # so that it repeats itself
    before = Habits()
    for row in rows:
        before.hear(row)
    of_each = [Habits(before) for _ in range(4)]
    for k, habits in enumerate(of_each):
        for row in rows[:k]:
            habits.hear(moved(row[None], 8)[0], count=False)
    coming = moved(rows[4:5], 8)[0].tolist()
    told = [{} if k == 3 else told_of(habits, name, coming) for k, habits in enumerate(of_each)]
    choices = Choices(model.heads, Recalled(before))
    states = states_of(model, 4, seed)
    program = torch.full((4,), coming[PROGRAM])
    chosen = model.heads.choose(0, program, None)
    expected = mixed_by_hand(model.heads, before, head, states, chosen, told, bar=2)
    after = choices.after(0, program.numpy(), together(states))
    for _ in range(2):  # counted, and then remembered
        found = choices.p(head, after, told, np.full(4, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    if name == POSITION:  # the same way ahead may lead out of what can be written
        assert (found.sum(1) < 1 + 1e-5).all()
    else:
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    alone = torch.softmax(model.heads.out[head](model.heads.features(head, states, chosen)), 1).numpy()
    np.testing.assert_allclose(found[3], alone[3], rtol=1e-4, atol=1e-7)
    assert not np.allclose(found[:3], alone[:3], rtol=0.1)


def mixed_in_torch(
    heads: Heads,
    habits: Habits,
    head: int,
    states: tuple[torch.Tensor, ...],
    told: list[Told],
    said: list[Says],
    bar: int,
) -> np.ndarray:
    """Probabilities (K, n) of each value as training has them: what every value would cost as the target."""
    name, sizes = HEAD_ORDER[head], (len(told), heads.out[head].out_features)
    opinions = len(HABITS[name]) + 1
    share, bucket = np.zeros((*sizes, opinions), np.float32), np.zeros((len(told), opinions), np.int64)
    level = np.tile(np.append(habits.levels(name), 0), (len(told), 1))
    for k, (columns, (value, trusted)) in enumerate(zip(told, said, strict=True)):
        for c, (symbols, start) in enumerate(habits.seen(name, columns) if columns else ()):
            seen = sum(symbols.values())
            bucket[k, c] = bucket_of_counts(np.array(seen), np.array(len(symbols)))
            for v in range(sizes[1]):
                symbol = (STAYS if v == bar else 1 - STAYS) if name == BAR else (v - start) % SYMBOLS
                share[k, v, c] = symbols.get(symbol, 0) / max(1, seen)
        bucket[k, -1] = trusted
        for v in range(sizes[1]):
            share[k, v, -1] = value == ((STAYS if v == bar else 1 - STAYS) if name == BAR else v)
    features = heads.features(head, states, None)
    trust = heads.trust(head, features, torch.from_numpy(bucket), torch.from_numpy(level))
    found = np.zeros(sizes)
    for v in range(sizes[1]):
        target = torch.full((len(told),), v)
        given = torch.from_numpy(share[:, v])
        own, others = heads.opinions(head, features, target, torch.full_like(target, bar), given)
        found[:, v] = torch.logsumexp(trust + torch.cat([own[:, None], others], 1), 1).exp().double().numpy()
    return found


@torch.inference_mode()
@pytest.mark.parametrize("head", range(8), ids=[FIELDS[name] for name in HEAD_ORDER])
def test_choices_mix_in_what_a_source_says_as_training_does(head: int) -> None:
    """Of candidates whose source says this, that or nothing, with habits and without."""
    model, name = lively_model(tiny_config()), HEAD_ORDER[head]
    before = Habits()
    for row in random_rows(np.random.default_rng(0), 60, bars=8):
        before.hear(row)
    coming = moved(random_rows(np.random.default_rng(0), 60, bars=8)[4:5], 8)[0].tolist()
    columns = told_of(Habits(before), name, coming)
    told: list[Told] = [columns, columns, {}, columns, {}]
    values = (STAYS, 1 - STAYS) if name == BAR else (1, 3)
    kinds = [int(bucket_of(told_bin, kept)) for told_bin, kept in ((0, True), (LIKENESS_BINS - 1, False), (4, True))]
    said: list[Says] = [(values[0], kinds[0]), (values[1], kinds[1]), (values[0], kinds[2]), NOTHING_SAID, NOTHING_SAID]
    states = states_of(model, len(told))
    choices = Choices(model.heads, Recalled(before))
    found = choices.p(head, together(states), told, np.full(len(told), 2), said)
    expected = mixed_in_torch(model.heads, before, head, states, told, said, bar=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    without = choices.p(head, together(states), told, np.full(len(told), 2))
    assert not np.allclose(found[:3], without[:3], rtol=0.05)
    np.testing.assert_allclose(found[3:], without[3:], rtol=1e-5)


def test_a_source_may_weigh_more() -> None:
    """Its odds against all else grow by as much as is said."""
    model, head = lively_model(tiny_config()), HEAD_ORDER.index(PITCH)
    states, said = states_of(model, 1), [(60, int(bucket_of(5, True)))]
    shares = []
    for nats in (0.0, 1.5):
        choices = Choices(model.heads, Recalled(Habits()), more_aligned=nats)
        own = choices.p(head, together(states), [{}])[0]
        mixed = choices.p(head, together(states), [{}], said=said)[0]
        others = np.arange(len(own)) != 60
        np.testing.assert_allclose(mixed[others] / own[others], (mixed[others] / own[others])[0], rtol=1e-3)
        shares.append(1 - (mixed[others] / own[others])[0])
    odds = [share / (1 - share) for share in shares]
    assert odds[1] / odds[0] == pytest.approx(np.exp(1.5), rel=1e-3)


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
    choices = Choices(model.heads, Recalled(habits))
    total = choices.p(POSITION_HEAD, together(states), [told]).sum()
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
    model, habits, head = lively_model(tiny_config()), Habits(), HEAD_ORDER.index(PITCH)
    for row in rows_of((0, 0, 0, 60), (0, 12, 0, 62)):
        habits.hear(row)
    told, states = told_of(habits, PITCH, rows_of((0, 24, 0, 64))[0].tolist()), states_of(model, 2)
    recalled = Recalled(habits)
    # the second candidate is told nothing: the network's opinion alone
    with torch.no_grad():
        alike = tuple(part[:1].expand(2, -1) for part in states)
    (plain, alone), (more, _) = (
        Choices(model.heads, recalled, nats).p(head, together(alike), [told, {}]) for nats in (0, 1.5)
    )
    unheard = np.array([p not in (60, 62) for p in range(FIELD_SIZES[PITCH])])
    shares = []  # of the habits
    for found in (plain, more):
        own = found[unheard] / alone[unheard]
        np.testing.assert_allclose(own, own[0], rtol=1e-3)
        shares.append(1 - own[0])
    odds = [share / (1 - share) for share in shares]
    assert odds[1] / odds[0] == pytest.approx(np.exp(1.5), rel=1e-3)


def test_rows_are_made_anew_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    habits, name = Habits(), PITCH
    for row in random_rows(np.random.default_rng(0), 60, bars=8):
        habits.hear(row)
    columns = [told_of(habits, name, row) for row in random_rows(np.random.default_rng(1), 60, bars=8).tolist()]
    at_once = Recalled(habits).find(name, columns)
    monkeypatch.setattr("midiex.recalled.MOST_ROWS", 10)
    few = Recalled(habits)
    for _ in range(2):
        for k, told in enumerate(columns):
            for part, whole in zip(few.find(name, [told]), at_once, strict=True):
                np.testing.assert_array_equal(part[0], whole[k])
    assert at_once[0].sum() > 0


def test_tables_are_made_once_for_the_weights_as_they_are() -> None:
    model = lively_model(tiny_config())
    first = Choices(model.heads, Recalled(Habits())).tables
    assert Choices(model.heads, Recalled(Habits())).tables is first
    with torch.no_grad():
        model.heads.out[0].bias.add_(1)
    assert Choices(model.heads, Recalled(Habits())).tables is not first
    with torch.inference_mode():  # weights that do not tell when they change
        untold = lively_model(tiny_config())
        first = Choices(untold.heads, Recalled(Habits())).tables
        assert Choices(untold.heads, Recalled(Habits())).tables is not first
