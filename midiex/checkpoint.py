"""A model on disk: a folder with model.safetensors (bf16), config.yaml and tokenizer.json. No pickle anywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .assets import asset_dir
from .config import Config, load_config, to_yaml
from .errors import BadInput, MissingPart
from .model import ChunkTransformer
from .tokens import FIELD_SIZES

MODEL_FILE, CONFIG_FILE, TOKENIZER_FILE = "model.safetensors", "config.yaml", "tokenizer.json"
DEFAULT_MODEL = "small"


def model_folder(chosen: str | Path | None = None) -> Path:
    """Folder of a model: a path, the name of a shipped one, or by default the shipped `small`.

    Raises MissingPart when there is none.
    """
    if chosen is not None and Path(chosen).is_dir():
        return Path(chosen)
    shipped = asset_dir("weights") / (DEFAULT_MODEL if chosen is None else str(chosen))
    if (shipped / MODEL_FILE).is_file():
        return shipped
    raise MissingPart(
        f"There is no model at {chosen or shipped}; give a folder that holds {MODEL_FILE} and {CONFIG_FILE}."
    )


def save_model(folder: str | Path, weights: dict[str, Tensor], config: Config) -> None:
    """Write weights (as bf16), config and tokenizer; each file appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in weights.items()}
    write_whole(folder / MODEL_FILE, save(tensors, {"fields": json.dumps(FIELD_SIZES)}))
    write_whole(folder / CONFIG_FILE, to_yaml(config).encode())
    from .tokenizer import NoteRowTokenizer

    part = folder / f"part.{TOKENIZER_FILE}"
    NoteRowTokenizer().save(part)
    part.replace(folder / TOKENIZER_FILE)


def load_model(chosen: str | Path | None = None) -> tuple[ChunkTransformer, Config]:
    """The network in float32, ready to be used, and its config.

    Raises MissingPart or BadInput when the folder is not a whole model of this version.
    """
    folder = model_folder(chosen)
    config = load_config(folder / CONFIG_FILE)
    try:
        with safe_open(folder / MODEL_FILE, "pt") as file:
            fields = tuple(json.loads((file.metadata() or {}).get("fields", "[]")))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{folder / MODEL_FILE} is damaged ({error}); fetch or train the model again.") from None
    if fields != FIELD_SIZES:
        raise BadInput(
            f"{folder} was made for other note rows ({list(fields)}); train it again with this version of midiex."
        )
    with torch.random.fork_rng(devices=()):  # not on the meta device: the import of torch's compiler takes a second
        model = ChunkTransformer(config)
    expected = {name: value.shape for name, value in model.state_dict().items()}
    odd = sorted(
        name for name in {*expected, *weights} if name not in weights or weights[name].shape != expected.get(name)
    )
    if odd:
        raise BadInput(f"{folder}: weights and config disagree (such as {odd[0]}); use files that belong together.")
    model.load_state_dict({k: v.float() for k, v in weights.items()}, assign=True)
    return model.eval().requires_grad_(False), config


def fingerprint(chosen: str | Path | None = None) -> str:
    """Twelve hexadecimal digits of the weights' SHA-256: which model it was."""
    return hashlib.sha256((model_folder(chosen) / MODEL_FILE).read_bytes()).hexdigest()[:12]


def write_whole(path: Path, data: bytes) -> None:
    """Write under a temporary name, then rename."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
