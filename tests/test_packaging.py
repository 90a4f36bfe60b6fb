"""The package: everything it needs is declared, everything it ships is packed, and the ways in are open."""

from __future__ import annotations

import ast
import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import midiex
from midiex.assets import asset_dir

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "midiex"
# where the name to import is not the name to install
DISTRIBUTION = {"yaml": "pyyaml", "fluidsynth": "pyfluidsynth"}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _names(requirements: str) -> set[str]:
    return {re.split(r"[<>=~! ]", line)[0].lower() for line in requirements.split("\n") if line.strip()}


def _imported(always: bool = False) -> set[str]:
    """Names of all packages imported anywhere in midiex, itself left out; `always`: as soon as a module is."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body if always else ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return {DISTRIBUTION.get(name, name) for name in found - {"midiex"} - set(sys.stdlib_module_names)}


def test_every_import_is_a_declared_dependency(setup_cfg: configparser.ConfigParser) -> None:
    declared = _names(setup_cfg["options"]["install_requires"])
    assert _imported(always=True) <= declared
    extras = setup_cfg["options.extras_require"]
    optional = set().union(*(_names(extras[extra]) for extra in extras if extra != "dev"))
    missing = _imported() - declared - optional
    assert not missing, f"neither in install_requires nor in an extra: {sorted(missing)}"


def test_version_is_plain_and_has_one_home(setup_cfg: configparser.ConfigParser) -> None:
    assert setup_cfg["metadata"]["version"] == "attr: midiex.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", midiex.__version__)


def test_importing_midiex_stays_light() -> None:
    """The version is read, and `midiex --help` answers, without waiting for torch."""
    code = "import sys, midiex; sys.exit(any(m in sys.modules for m in ('torch', 'miditok', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_console_script_leads_to_a_callable(setup_cfg: configparser.ConfigParser) -> None:
    target = setup_cfg["options.entry_points"]["console_scripts"].split("=")[1].strip()
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_a_build_packs_every_file_midiex_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks setuptools itself what it would pack, without building anything."""
    dist_module = pytest.importorskip("setuptools.dist")
    monkeypatch.chdir(ROOT)
    dist = dist_module.Distribution()
    dist.parse_config_files([str(ROOT / "setup.cfg")])
    build = dist.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {Path(*package.split("."), name).as_posix() for package, _, _, names in build.data_files for name in names}
    assert "midiex/py.typed" in packed
    for kind, pattern in (("configs", "*.yaml"), ("soundfonts", "*.sf3"), ("soundfonts", "*LICENSE*")):
        shipped = sorted((ROOT / kind).glob(pattern))
        assert shipped
        assert {f"midiex/{kind}/{path.name}" for path in shipped} <= packed
    weights = [path for path in (PACKAGE / "weights").rglob("*") if path.is_file()]
    assert {path.relative_to(ROOT).as_posix() for path in weights} <= packed


@pytest.mark.parametrize("kind", ["soundfonts", "configs"])
def test_assets_are_found(kind: str) -> None:
    assert any(asset_dir(kind).iterdir())


@pytest.mark.parametrize("installed", [True, False])
def test_assets_are_found_in_both_layouts(tmp_path: Path, installed: bool) -> None:
    """A copy of the package finds configs inside itself (as from a wheel) and beside itself (as in a checkout)."""
    package = tmp_path / "midiex"
    package.mkdir()
    for name in ("assets.py", "errors.py"):
        shutil.copy(PACKAGE / name, package)
    (package / "__init__.py").touch()
    folder = (package if installed else tmp_path) / "configs"
    folder.mkdir()
    code = "from midiex.assets import asset_dir; print(asset_dir('configs'))"
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(out.stdout.strip()) == folder.resolve()


def test_notice_and_licence_cover_what_ships() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    notice = (ROOT / "NOTICE").read_text()
    for name in ("Frank Wen", "Fryderyk Chopin", "POP909", "Groove MIDI", "Freedoom", "Simutrans", "OpenScore"):
        assert name in notice


def test_ci_scripts_can_be_run() -> None:
    for name in ("run", "prepare"):
        script = ROOT / ".ci" / name
        assert os.access(script, os.X_OK), name
        subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony.split():
        assert re.search(rf"^  make {target} +\S", shown, re.M), target
