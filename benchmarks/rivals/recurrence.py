"""Recurrent layers as the rivals need them: begun well, left and resumed, in a way that a CPU trains in good time.

Shapes: W sequences side by side, T steps, H width of a layer, L layers. Knows tensors only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

OWN, TORCHS = "own", "torch's"
kernels = OWN  # of a CPU; another only to measure what these are worth


def begin_well(network: nn.LSTM | nn.GRU) -> None:
    """Orthogonal recurrent matrices gate by gate (Saxe et al., arXiv 1312.6120), inputs of unit gain, and an LSTM's
    forget gates open (Jozefowicz et al. 2015): bias 1."""
    width = network.hidden_size
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "bias" in name:
                weight.zero_()
                if name.startswith("bias_ih") and isinstance(network, nn.LSTM):
                    weight[width : 2 * width] = 1.0
            elif "weight_hh" in name:
                for gate in weight.split(width):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


def run_lstm(lstm: nn.LSTM, x: Tensor, lengths: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Sequences x (W, T, D), of which the first `lengths` (W,) rows count, begun in `state` (2, L, W, H), which is h
    and c -> outputs (W, T, H), garbage where nothing counts, and the state after each. All float32; on a CPU it runs as
    that under any autocast, and without torch's own LSTM for the reason that `run_gru` gives."""
    if x.is_cuda or kernels == TORCHS:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, (h, c) = lstm(packed, (state[0].contiguous(), state[1].contiguous()))
        return pad_packed_sequence(y, batch_first=True)[0].float(), torch.stack([h, c]).float()
    lengths, order = lengths.sort(descending=True)
    playing = (lengths > torch.arange(x.shape[1])[:, None]).sum(1).tolist()  # of each step, how many sequences have it
    last = []
    with torch.autocast("cpu", enabled=False):
        y, state = x.float()[order].transpose(0, 1), state.float()[:, :, order]
        for layer in range(lstm.num_layers):
            inner, outer, *biases = _weights(lstm, layer)
            gates = nn.functional.linear(y, outer, biases[0] + biases[1])
            y, cell = _LstmLayer.apply(gates, state[0, layer], state[1, layer], inner, playing)
            last.append(torch.stack([y[-1], cell]))
    back = order.argsort()
    return y.transpose(0, 1)[back], torch.stack(last, 1)[:, :, back]


def run_gru(gru: nn.GRU, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, W, D), state (L, W, H) -> outputs (T, W, H) and the state after the last step. torch's own GRU adds to the
    gradient of the recurrent matrix at every step, which on a CPU takes most of the time; here it is one product."""
    if x.is_cuda or kernels == TORCHS:
        y, state = gru(x, state)
        return y.float(), state.float()
    last = []
    with torch.autocast("cpu", enabled=False):
        x = x.float()
        for layer in range(gru.num_layers):
            inner, outer, bias, outer_bias = _weights(gru, layer)
            gates = nn.functional.linear(x, outer, outer_bias)
            x = _GruLayer.apply(gates, state[layer].float(), inner, bias)
            last.append(x[-1])
    return x, torch.stack(last)


def _weights(network: nn.RNNBase, layer: int) -> list[Tensor]:
    """Of a layer: to its gates from its state and from its input, and the biases of both."""
    return [getattr(network, f"{name}_l{layer}") for name in ("weight_hh", "weight_ih", "bias_hh", "bias_ih")]


class _LstmLayer(torch.autograd.Function):
    """gates (T, W, 4H): what the inputs say of input, forget, new and output; h and c before, (W, H); weight (4H, H).
    Of W sequences, longest first, the first playing[t] have a step t; the others' state stays. Gives h after each step
    and the last c. The equations are those of torch.nn.LSTM (Gers et al. 2000)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h: Tensor, c: Tensor, weight: Tensor, playing: list[int]) -> Any:
        steps, width = len(gates), weight.shape[1]
        states, cells = h.new_empty(steps + 1, *h.shape), c.new_empty(steps + 1, *c.shape)
        states[0], cells[0] = h, c
        kept, bent = torch.zeros_like(gates), torch.zeros_like(cells[1:])  # the gates opened; tanh of c
        across = weight.t()
        for t, n in enumerate(playing):
            told = torch.addmm(gates[t, :n], states[t, :n], across)
            new = told[:, 2 * width : 3 * width].tanh()
            told.sigmoid_()
            told[:, 2 * width : 3 * width] = new
            kept[t, :n] = told
            enter, stay, _, leave = told.chunk(4, 1)
            torch.addcmul(stay * cells[t, :n], enter, new, out=cells[t + 1, :n])
            torch.tanh(cells[t + 1, :n], out=bent[t, :n])
            torch.mul(leave, bent[t, :n], out=states[t + 1, :n])
            if n < len(h):
                cells[t + 1, n:], states[t + 1, n:] = cells[t, n:], states[t, n:]
        ctx.save_for_backward(states, cells, kept, bent, weight)
        ctx.playing = playing
        return states[1:], cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_cell: Tensor) -> Any:
        states, cells, kept, bent, weight = ctx.saved_tensors
        enter, stay, new, leave = kept.chunk(4, 2)
        # of c by h, and of the gates' sums by c and h
        to_cell = leave * (1 - bent * bent)
        by_cell = torch.stack([
            new * enter * (1 - enter), cells[:-1] * stay * (1 - stay), enter * (1 - new * new)
        ], 2)  # (T, W, 3, H)  # fmt: skip
        by_state = bent * leave * (1 - leave)
        reached = torch.zeros_like(kept).view(*bent.shape[:2], 4, -1)
        state, cell = torch.zeros_like(grad_cell), grad_cell.clone()
        for t in range(len(grad) - 1, -1, -1):
            n = ctx.playing[t]
            state += grad[t]
            cell[:n].addcmul_(state[:n], to_cell[t, :n])
            torch.mul(by_cell[t, :n], cell[:n, None], out=reached[t, :n, :3])
            torch.mul(by_state[t, :n], state[:n], out=reached[t, :n, 3])
            cell[:n] *= stay[t, :n]
            torch.mm(reached[t, :n].flatten(1), weight, out=state[:n])
        gates = reached.flatten(2)
        return gates, state, cell, gates.flatten(0, 1).t() @ states[:-1].flatten(0, 1), None


class _GruLayer(torch.autograd.Function):
    """gates (T, W, 3H): what the inputs say of reset, update and new state; start (W, H); weight (3H, H), bias (3H,).
    The equations are those of torch.nn.GRU (Cho et al., arXiv 1406.1078)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, width = len(gates), weight.shape[1]
        states = start.new_empty(steps + 1, *start.shape)
        states[0] = start
        kept = gates.new_empty(4, steps, *start.shape)  # reset, update, new state, the state's part of the new state
        across = weight.t()
        for t in range(steps):
            told = torch.addmm(bias, states[t], across)
            turns = (told[:, : 2 * width] + gates[t, :, : 2 * width]).sigmoid_()
            reset, update, own = turns[:, :width], turns[:, width:], told[:, 2 * width :]
            new = torch.addcmul(gates[t, :, 2 * width :], reset, own).tanh_()
            torch.lerp(new, states[t], update, out=states[t + 1])
            kept[0, t], kept[1, t], kept[2, t], kept[3, t] = reset, update, new, own
        ctx.save_for_backward(states, kept, weight)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        states, (reset, update, new, own), weight = ctx.saved_tensors
        before = states[:-1]
        # of the gates' sums by the state that follows
        to_new = (1 - update) * (1 - new * new)
        to_reset = to_new * own * reset * (1 - reset)
        to_update = (before - new) * update * (1 - update)
        of_state = torch.stack([to_reset, to_update, to_new * reset], 2)  # (T, W, 3, H)
        reached = torch.empty_like(of_state)
        carried = torch.zeros_like(states[0])
        for t in range(len(grad) - 1, -1, -1):
            carried = carried + grad[t]
            torch.mul(of_state[t], carried[:, None], out=reached[t])
            grad_new = to_new[t] * carried
            carried = torch.addmm(carried * update[t], reached[t].flatten(1), weight)
            to_new[t] = grad_new  # its place is free now
        flat = reached.flatten(2).flatten(0, 1)  # (T W, 3H)
        of_inputs = torch.cat([reached[:, :, :2].flatten(2), to_new], 2)
        return of_inputs, carried, flat.t() @ before.flatten(0, 1), flat.sum(0)
