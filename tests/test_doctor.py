"""The doctor: names what is wrong and how to mend it, one thing at a time, and never stops half-way."""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from midiex import doctor, render
from midiex.config import load_config, to_yaml
from midiex.doctor import Check
from midiex.errors import MissingPart


def _check(name: str) -> Check:
    (found,) = [c for c in doctor.check() if c.name == name]
    return found


@pytest.fixture
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole, tiny model where the doctor looks for the default one."""
    folder = tmp_path / "small"
    folder.mkdir()
    save_file({"a": np.zeros((1000, 500), np.float32), "b": np.zeros(500, np.float32)}, folder / "model.safetensors")
    (folder / "config.yaml").write_text(to_yaml(load_config("tiny")))
    (folder / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(doctor, "asset_dir", lambda kind: tmp_path)
    return folder


def test_every_check_has_a_name_of_its_own_and_mends_only_what_is_broken() -> None:
    checks = doctor.check()
    assert len({c.name for c in checks}) == len(checks) >= 10
    for c in checks:
        assert c.found
        assert bool(c.mend) != c.ok


def test_what_the_tests_themselves_need_is_found() -> None:
    for name in ("Python", "torch", "miditok", "symusic", "soundfile", "soundfont", "temp folder"):
        assert _check(name).ok, _check(name)
    assert metadata.version("symusic") in _check("symusic").found
    assert "threads" in _check("torch").found


def test_old_python_is_told_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    assert not _check("Python").ok
    assert "too old" in _check("Python").mend


def test_missing_libfluidsynth_is_mended_by_the_renderers_own_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise MissingPart("It is missing; install it.")

    monkeypatch.setattr(render, "fluidsynth_version", missing)
    assert _check("libfluidsynth") == Check("libfluidsynth", False, "not usable", "It is missing; install it.")
    assert len(doctor.check()) >= 10  # the others are still looked at


def test_broken_package_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", broken)
    assert _check("symusic").found == "OSError: symusic: cannot open shared object file"
    assert _check("symusic").mend == "Run `pip install symusic`."


def test_package_that_hides_pyfluidsynth_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _check("fluidsynth package").ok
    version = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda p: "0.2" if p == "fluidsynth" else version(p))
    assert "pip uninstall fluidsynth" in _check("fluidsynth package").mend


def test_whole_model_is_measured(model_folder: Path) -> None:
    weights = _check("weights")
    assert weights.ok
    assert "0.5 M parameters, 2.0 MB" in weights.found
    assert str(model_folder) in weights.found


@pytest.mark.parametrize("part", ["model.safetensors", "config.yaml", "tokenizer.json"])
def test_missing_part_of_the_model_is_named(model_folder: Path, part: str) -> None:
    (model_folder / part).unlink()
    assert not _check("weights").ok
    assert str(model_folder / part) in _check("weights").mend


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\x10\0\0\0\0\0\0\0{}"])
def test_unreadable_weights_are_named(model_folder: Path, content: bytes) -> None:
    (model_folder / "model.safetensors").write_bytes(content)
    assert "cannot be read" in _check("weights").mend


def test_weights_cut_short_are_noticed(model_folder: Path) -> None:
    path = model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read" in _check("weights").mend


def test_wrong_config_beside_the_weights_is_named(model_folder: Path) -> None:
    (model_folder / "config.yaml").write_text("models: {}\n")
    assert "'models' is unknown" in _check("weights").mend


def test_temp_folder_that_cannot_be_written_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert not _check("temp folder").ok
    assert "TMPDIR" in _check("temp folder").mend
