"""What every test shares: one thread, so that sums come out the same, and fixtures of small models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import soundfile  # noqa: F401  before pretty_midi, as in midiex/libraries.py
import torch
from helpers import lively_model, tiny_config
from hypothesis import settings

from midiex.config import Config
from midiex.model import ChunkTransformer

settings.register_profile("midiex", deadline=None)
settings.load_profile("midiex")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def config() -> Config:
    return tiny_config()


@pytest.fixture(scope="session")
def model(config: Config) -> ChunkTransformer:
    """Random, with branches that count; for reading only."""
    return lively_model(config)
