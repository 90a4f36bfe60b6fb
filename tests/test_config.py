"""Configs: the shipped sizes load, what is written reads back, and every mistake is named."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from midiex.config import Config, GenerateConfig, MemoryConfig, ModelConfig, from_dict, load_config, to_yaml
from midiex.errors import BadInput

SIZES = ("tiny", "small", "base")


def _as_dict() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(to_yaml(load_config("tiny")))
    return data


@pytest.mark.parametrize("size", SIZES)
def test_shipped_size_loads_under_its_own_name_and_survives_yaml(size: str) -> None:
    config = load_config(size)
    assert config.model.name == size
    assert config.model.head_dim * config.model.n_heads == config.model.d_model
    assert from_dict(yaml.safe_load(to_yaml(config))) == config


def test_sizes_grow_in_every_dimension() -> None:
    tiny, small, base = (load_config(size).model for size in SIZES)
    for key in ("d_model", "n_heads", "encoder_layers", "decoder_layers", "d_ff", "d_head_hidden"):
        assert getattr(tiny, key) < getattr(small, key) < getattr(base, key), key


def test_config_is_found_by_path_as_text_or_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(load_config("tiny")))
    assert load_config(path) == load_config(str(path)) == load_config("tiny")


def test_a_config_cannot_be_changed_only_replaced() -> None:
    config = load_config("tiny")
    with pytest.raises(FrozenInstanceError):
        config.model.d_model = 128  # type: ignore[misc]
    with pytest.raises(BadInput, match=r"model\.d_model"):
        replace(config.model, d_model=65)


def test_sections_with_defaults_may_be_left_out_whole_or_in_part() -> None:
    data = _as_dict()
    del data["memory"]
    data["generate"] = {"temperature": 1}
    config = from_dict(data)
    assert config.memory == MemoryConfig()
    assert config.generate == GenerateConfig(temperature=1.0)
    assert isinstance(config.generate.temperature, float)


@pytest.mark.parametrize("section", ["model", "train"])
def test_section_without_defaults_may_not_be_left_out(section: str) -> None:
    data = _as_dict()
    del data[section]
    with pytest.raises(BadInput, match=rf"'{section}\.\w+' is missing"):
        from_dict(data)


def test_unknown_keys_are_named_with_the_allowed_ones() -> None:
    data = _as_dict()
    data["model"]["n_headz"] = 2
    with pytest.raises(BadInput, match=r"'model\.n_headz' is unknown.*n_heads, encoder_layers"):
        from_dict(data)
    with pytest.raises(BadInput, match=r"'models' is unknown.*model, memory, train, generate"):
        from_dict({"models": {}})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "d_model", "64"),
        ("model", "d_model", True),
        ("model", "d_model", 64.0),
        ("model", "d_model", None),
        ("model", "name", 7),
        ("train", "lr", "fast"),
        ("train", "lr", False),
        ("train", "lr", [0.1]),
        ("train", "lr", float("nan")),
        ("train", "lr", 10**400),
        ("train", "seed", "1"),
    ],
)
def test_wrong_type_names_the_key(section: str, key: str, value: object) -> None:
    data = _as_dict()
    data[section][key] = value
    with pytest.raises(BadInput, match=rf"'{section}\.{key}' must be"):
        from_dict(data)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "d_model", 65),  # no multiple of the heads
        ("model", "n_heads", 8),  # heads of 8
        ("model", "n_heads", 0),
        ("model", "encoder_layers", 0),
        ("model", "name", " "),
        ("memory", "recent_chunks", 0),
        ("memory", "summary_chunks", -1),
        ("train", "notes_per_batch", 0),
        ("train", "lr", 0),
        ("train", "weight_decay", -0.1),
        ("train", "decay_fraction", 1.5),
        ("train", "ema_decay", 1),
        ("train", "condition_dropout", -0.1),
        ("train", "seed", -1),
        ("generate", "temperature", 0),
        ("generate", "top_p", 0),
        ("generate", "top_p", 1.01),
        ("generate", "min_p", 2),
        ("generate", "candidates", 0),
        ("generate", "max_attempts", 0),
    ],
)
def test_value_out_of_range_names_the_key(section: str, key: str, value: object) -> None:
    data = _as_dict()
    data[section][key] = value
    with pytest.raises(BadInput, match=rf"'{section}\.{key}' is "):
        from_dict(data)


@pytest.mark.parametrize(("n_heads", "fits"), [(2, True), (4, True), (3, False), (5, False)])
def test_heads_must_be_even_and_wide_enough(n_heads: int, fits: bool) -> None:
    def model() -> ModelConfig:  # 4 heads of 16 fit; 3 heads of 17 are odd; 5 do not divide 64
        return ModelConfig("x", 51 if n_heads == 3 else 64, n_heads, 1, 1, 64, 16)

    if fits:
        assert model().head_dim == 64 // n_heads
    else:
        with pytest.raises(BadInput):
            model()


def test_numbers_yaml_takes_for_text_are_still_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(load_config("tiny")).replace("lr: 0.003", "lr: 3e-3"))
    assert yaml.safe_load(path.read_text())["train"]["lr"] == "3e-3"
    assert load_config(path).train.lr == 0.003


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00\xd8\xff", b"x: 2026-99-99", b"[" * 20_000])
def test_file_that_is_not_yaml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"mine\.yaml is not readable as YAML"):
        load_config(path)


@pytest.mark.parametrize("content", ["", "- 1\n", "just text\n", "model: 3\n", "model: [1]\n"])
def test_yaml_of_the_wrong_shape_names_file_and_section(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"mine\.yaml: Keys are needed in (a config|section 'model')"):
        load_config(path)


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{trace}']]")
    with pytest.raises(BadInput):
        load_config(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["huge", "", "no/such/folder", "missing.yaml"])
def test_unknown_name_lists_the_sizes(name: str) -> None:
    with pytest.raises(BadInput, match="base, small, tiny"):
        load_config(name)


@given(
    lr=st.floats(1e-12, 1e3),
    decay=st.floats(0, 1),
    notes=st.integers(1, 10**12),
    name=st.text(min_size=1).filter(str.strip),
)
def test_any_valid_config_survives_yaml(lr: float, decay: float, notes: int, name: str) -> None:
    config = load_config("tiny")
    config = Config(
        replace(config.model, name=name),
        config.memory,
        replace(config.train, lr=lr, decay_fraction=decay, max_notes=notes),
        config.generate,
    )
    assert from_dict(yaml.safe_load(to_yaml(config))) == config


def test_input_is_left_alone() -> None:
    data = _as_dict()
    before = copy.deepcopy(data)
    from_dict(data)
    assert data == before
