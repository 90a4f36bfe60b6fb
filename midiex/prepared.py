"""What is made of a module's weights once, and anew when they have changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import nn

_Made = TypeVar("_Made")


def once_a_version(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """A function of a module (and of settings) that keeps what it made while the module's weights stay as they are.

    Weights made in torch's inference mode do not tell when they change, so that nothing is kept of them.
    """
    known: WeakKeyDictionary[nn.Module, tuple[int, dict[Hashable, _Made]]] = WeakKeyDictionary()

    @functools.wraps(make)
    def made(module: nn.Module, *settings: Hashable) -> _Made:
        weights = list(module.parameters())
        if any(weight.is_inference() for weight in weights):
            return make(module, *settings)
        version = sum(weight._version for weight in weights)
        found = known.get(module)
        if found is None or found[0] != version:
            found = known[module] = version, {}
        if settings not in found[1]:
            found[1][settings] = make(module, *settings)
        return found[1][settings]

    return made
