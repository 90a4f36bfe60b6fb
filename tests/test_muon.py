"""Muon: updates are orthogonal in each part of a weight, whatever the gradient; it learns and keeps its state."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midiex.muon import Muon, orthogonal


@given(st.integers(1, 3), st.integers(2, 24), st.integers(2, 24), st.integers(0, 2**31), st.floats(1e-6, 1e6))
@settings(max_examples=40)
def test_singular_values_end_near_one_and_spaces_stay(k: int, m: int, n: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    given = []
    for _ in range(k):
        u, _, vt = np.linalg.svd(rng.normal(size=(m, n)), full_matrices=False)
        given.append((u * rng.uniform(0.3, 1, min(m, n))) @ vt * scale)
    matrices = torch.tensor(np.array(given), dtype=torch.float32)
    found = orthogonal(matrices)
    assert found.shape == matrices.shape
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5 and float(values.max()) < 1.3
    back = (
        torch.linalg.lstsq(matrices.mT, found.mT).solution if m <= n else torch.linalg.lstsq(matrices, found).solution
    )
    again = (matrices.mT @ back).mT if m <= n else matrices @ back
    torch.testing.assert_close(again, found, atol=2e-3, rtol=2e-3)


def test_the_matrices_given_stay_as_they_are() -> None:
    matrices = torch.randn(2, 4, 6)
    before = matrices.clone()
    orthogonal(matrices)
    assert torch.equal(matrices, before)


def test_stacked_parts_are_taken_apart() -> None:
    torch.manual_seed(0)
    whole = torch.nn.Parameter(torch.randn(6, 4))
    alone = [torch.nn.Parameter(part.clone()) for part in whole.detach().chunk(2)]
    together, apart = Muon([{"params": [whole], "parts": 2}], lr=0.1), Muon([{"params": alone}], lr=0.1)
    for _ in range(3):
        whole.grad = torch.randn(6, 4)
        for weight, gradient in zip(alone, whole.grad.chunk(2), strict=True):
            weight.grad = gradient.clone()
        together.step()
        apart.step()
    torch.testing.assert_close(whole.detach(), torch.cat([weight.detach() for weight in alone]))


def test_weights_decay_and_those_without_a_gradient_do_nothing() -> None:
    still, moved = (torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    optimizer = Muon([{"params": [still, moved]}], lr=0.1, weight_decay=0.5)
    moved.grad = torch.zeros(3, 3)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(3, 3))
    torch.testing.assert_close(moved.detach(), torch.full((3, 3), 0.95))


def test_it_learns_a_linear_map_and_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    target, inputs = torch.randn(8, 8), torch.randn(64, 8)
    weight = torch.nn.Parameter(torch.zeros(8, 8))

    def train(optimizer: Muon, steps: int) -> float:
        for _ in range(steps):
            loss = ((inputs @ (weight - target).T) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    first = Muon([{"params": [weight]}], lr=0.02)
    begun = train(first, 1)
    assert train(first, 80) < 0.1 * begun
    saved, state = weight.detach().clone(), deepcopy(first.state_dict())
    train(first, 5)
    once = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(saved)
    second = Muon([{"params": [weight]}], lr=0.02)
    second.load_state_dict(state)
    train(second, 5)
    assert torch.equal(weight.detach(), once)
    assert begun == pytest.approx(float(((inputs @ target.T) ** 2).mean()))
