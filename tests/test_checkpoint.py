"""Models on disk: the same network back, every wrong folder refused in a sentence, and no pickle anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import lively_model, model_batch, random_rows, tiny_config
from safetensors.torch import load_file, save_file

import midiex
from midiex import checkpoint
from midiex.checkpoint import CONFIG_FILE, MODEL_FILE, TOKENIZER_FILE, load_model, model_folder, save_model, write_whole
from midiex.config import Config, to_yaml
from midiex.errors import BadInput, MissingPart
from midiex.model import OPENING, RECENT, Batch
from midiex.tokenizer import NoteRowTokenizer
from midiex.tokens import FIELD_SIZES


@pytest.fixture
def folder(tmp_path: Path, config: Config) -> Path:
    save_model(tmp_path / "model", lively_model(config).state_dict(), config)
    return tmp_path / "model"


def batch() -> Batch:
    rng = np.random.default_rng(0)
    chunks = [random_rows(rng, 20) for _ in range(3)]
    return model_batch(chunks, [1, 2], [[(0, RECENT)], [(1, RECENT)]], [[], [(0, OPENING)]])


def refusal(folder: Path, kind: type[Exception] = BadInput) -> str:
    with pytest.raises(kind) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


def test_a_model_comes_back_as_it_was_in_bf16(folder: Path, config: Config) -> None:
    loaded, its_config = load_model(folder)
    assert its_config == config
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    original = lively_model(config).state_dict()
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, original[name].bfloat16().float()), name
    assert loaded.state_dict().keys() == original.keys()


def test_a_loaded_model_computes_what_the_saved_one_did(folder: Path, config: Config) -> None:
    original = lively_model(config)
    original.load_state_dict({k: v.bfloat16().float() for k, v in original.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(load_model(folder)[0](batch()), original(batch()))


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(before) == {MODEL_FILE, CONFIG_FILE, TOKENIZER_FILE}
    model, config = load_model(str(folder))
    save_model(folder, model.state_dict(), config)
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(after) == set(before)
    assert all(after[name] == before[name] for name in (MODEL_FILE, CONFIG_FILE))


def test_the_tokenizer_beside_the_weights_is_ours(folder: Path) -> None:
    assert NoteRowTokenizer(params=folder / TOKENIZER_FILE) == NoteRowTokenizer()


def test_weights_are_half_the_size_of_float32(folder: Path, config: Config) -> None:
    parameters = sum(p.numel() for p in lively_model(config).parameters())
    assert 2 * parameters <= (folder / MODEL_FILE).stat().st_size < 2 * parameters + 20_000
    assert {t.dtype for t in load_file(folder / MODEL_FILE).values()} == {torch.bfloat16}


def test_a_model_for_other_rows_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = load_file(folder / MODEL_FILE)
    save_file(weights, folder / MODEL_FILE, {"fields": json.dumps([*FIELD_SIZES[:-1], 64])})
    assert "other note rows" in refusal(folder)
    save_file(weights, folder / MODEL_FILE)
    assert "other note rows" in refusal(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    data = (folder / MODEL_FILE).read_bytes()
    for damaged in (b"", data[:100], data[: len(data) // 2], b"\xff" * 8 + data[8:], b"PK\x03\x04" + data):
        (folder / MODEL_FILE).write_bytes(damaged)
        assert "damaged" in refusal(folder)
    (folder / MODEL_FILE).unlink()
    refusal(folder)


def test_weights_of_another_config_are_refused(folder: Path, config: Config) -> None:
    deeper = replace(config, model=replace(config.model, decoder_layers=3))
    (folder / CONFIG_FILE).write_text(to_yaml(deeper))
    assert "disagree" in refusal(folder)
    shallower = replace(config, model=replace(config.model, decoder_layers=1))
    (folder / CONFIG_FILE).write_text(to_yaml(shallower))
    assert "disagree" in refusal(folder)


@pytest.mark.parametrize("size", [{"d_model": 64}, {"d_head_hidden": 32}, {"summary_rows": 3}])
def test_weights_of_another_width_are_refused(folder: Path, config: Config, size: dict[str, int]) -> None:
    (folder / CONFIG_FILE).write_text(to_yaml(replace(config, model=replace(config.model, **size))))  # type: ignore[arg-type]
    assert "disagree" in refusal(folder)


def test_a_folder_without_a_config_is_refused(folder: Path) -> None:
    (folder / CONFIG_FILE).write_text("model: 3")
    assert str(folder) in refusal(folder)
    (folder / CONFIG_FILE).unlink()
    refusal(folder)


def test_shipped_models_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "asset_dir", lambda kind: tmp_path / kind)
    with pytest.raises(MissingPart, match="There is no model"):
        model_folder()
    with pytest.raises(MissingPart, match="nowhere"):
        model_folder("nowhere")
    for name in ("small", "mine"):
        save_model(tmp_path / "weights" / name, lively_model(tiny_config()).state_dict(), tiny_config())
    assert model_folder() == tmp_path / "weights" / "small"
    assert model_folder("mine") == tmp_path / "weights" / "mine"
    assert model_folder(tmp_path) == tmp_path


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_nothing_is_ever_unpickled() -> None:
    forbidden = re.compile(r"torch\.(load|save)\b|\bpickle\b|\bjoblib\b|\bdill\b|\bshelve\b|allow_pickle")
    for path in sorted(Path(midiex.__file__).parent.rglob("*.py")):
        code = re.sub(r'""".*?"""|#.*', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"^\s*(import|from)\s+(pickle|joblib|dill|shelve)\b", code, re.MULTILINE), path
        assert not forbidden.search(code), path
