"""How large each rival is at two scales, chosen so that all have about as many parameters as midiex's own network.

Width of the stream, embeddings and heads are the same for all at a scale. A recurrent network's layers are
`model.d_ff` wide, and it has two on each side; a network of the running song has no encoder layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from midiex.checkpoint import CONFIG_FILE, MODEL_FILE
from midiex.config import Config, ModelConfig, load_config
from midiex.model import ChunkTransformer, NoteModel

from .networks import DecoderOnly, Gru, Lstm, LstmAttention, plain

NETWORKS: dict[str, type[NoteModel]] = {
    "ours": ChunkTransformer,
    "lstm": Lstm,
    "lstm_attention": LstmAttention,
    "gru": Gru,
    "decoder_only": DecoderOnly,
}
RECURRENT = ("lstm", "lstm_attention", "gru")


@dataclass(frozen=True)
class Scale:
    """What all networks of a scale share, and what each has of its own."""

    d_model: int
    n_heads: int
    d_head_hidden: int
    encoder_layers: int  # ours
    decoder_layers: int
    d_ff: int
    recurrent: dict[str, int]  # widths of the layers
    decoder_only: tuple[int, int]  # layers, and their inner width


SCALES = {
    "3M": Scale(192, 3, 96, 2, 3, 384, {"lstm": 272, "lstm_attention": 272, "gru": 480}, (6, 448)),
    "12M": Scale(320, 5, 160, 3, 4, 896, {"lstm": 608, "lstm_attention": 592, "gru": 1024}, (9, 832)),
}


def config(name: str, scale: str, **train: Any) -> Config:
    """Config of a network; keywords replace values of the section `train`, which is otherwise that of `small`, but for
    what only a network with a memory in slots could hear: chunks that go back to a source, and voices that stand."""
    size, shipped = SCALES[scale], load_config("small")
    layers, width = size.decoder_only if name == "decoder_only" else (size.decoder_layers, size.d_ff)
    model = ModelConfig(
        name=f"{name}-{scale}",
        d_model=size.d_model,
        n_heads=size.n_heads,
        encoder_layers=size.encoder_layers if name == "ours" else 1,
        decoder_layers=layers,
        d_ff=size.recurrent.get(name, width),
        d_head_hidden=size.d_head_hidden,
    )
    # float32 on every machine: recurrent kernels gain nothing from bf16 units, and would pay for going to and fro
    settings = {"precision": "float32", "with_source": 0.0, "with_standing": 0.0, "without_past": 0.0} | train
    return replace(shipped, model=model, train=replace(shipped.train, **settings))


def builder(name: str, alone: bool = False, bptt_notes: int | None = None) -> Callable[[Config], NoteModel]:
    """What midiex.train.train takes as `build`. With `alone` the network hears every batch as `plain`; only a recurrent
    one takes `bptt_notes`."""
    options = {} if bptt_notes is None else {"bptt_notes": bptt_notes}

    def build(config: Config) -> NoteModel:
        network = NETWORKS[name](config, **options)
        if alone:
            network.register_forward_pre_hook(lambda _, inputs: (plain(inputs[0]),))
        return network

    return build


def build(name: str, scale: str) -> NoteModel:
    """A network with random weights."""
    return builder(name)(config(name, scale))


def load(folder: str | Path, alone: bool = False) -> tuple[NoteModel, Config]:
    """A trained one, as midiex.train.train left it, ready to be judged, and its config."""
    found = load_config(Path(folder) / CONFIG_FILE)
    network = builder(found.model.name.split("-")[0], alone)(found)
    network.load_state_dict({name: value.float() for name, value in load_file(Path(folder) / MODEL_FILE).items()})
    return network.eval().requires_grad_(False), found
