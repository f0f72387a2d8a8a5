"""Zoneout: recurrent states that keep random entries from one step to the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brickyard.catalog import brick
from brickyard.nn.noise import check_probability

__all__ = ["Zoneout", "ZoneoutLSTM", "zoneout"]

_PAPER = "Krueger et al. 2017, Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations"
_Pair = tuple[Tensor, Tensor]


def zoneout(new: Tensor, old: Tensor, p: float, training: bool = True) -> Tensor:
    """Keep entries of the old state with chance ``p``; mix old and new by ``p`` in evaluation.

    Args:
        new: state after the step.
        old: state before it, of the same shape.
        p: chance that an entry stays as it was.
        training: draw; otherwise return the mean.

    Raises:
        ValueError: ``p`` outside [0, 1], or shapes that differ.
    """
    check_probability("zoneout", "p", p)
    if new.shape != old.shape:
        raise ValueError(
            f"zoneout mixes states of one shape, got {tuple(new.shape)} and {tuple(old.shape)}"
        )
    if p == 0:
        return new
    if not training:
        return torch.lerp(new, old, p)
    return torch.where(torch.rand_like(new) < p, old, new)


@brick(
    "dropout",
    "zoneout",
    public="brickyard.nn",
    granularity="every entry of a state by itself, at each time step",
    summary="Lets random entries of a recurrent state keep their last value for a step.",
    use_when="A recurrent network overfits and you step its cell yourself; ZoneoutLSTM takes "
    "whole sequences.",
    avoid_when="The network is not recurrent. Speed counts: it rules out cuDNN's fused loop, so "
    "that variational_dropout around nn.LSTM is far faster.",
    best_for="Character-level language models, speech synthesis (Tacotron 2 zones out at 0.1).",
    paper=_PAPER + ", arXiv:1606.01305",
    tune_first="p_cell of an LSTM, 0.1 to 0.5; p_hidden stays near 0.05.",
    cost="One draw and one selection for each entry of the state and step in training; one blend "
    "in evaluation.",
    pairs_with=("orthogonal_", "variational_dropout"),
)
class Zoneout(nn.Module):
    """Step a recurrent cell and keep random entries of its old state.

    Math:
        training: h_t = m * h_(t-1) + (1 - m) * h~_t, m ~ Bernoulli(p_hidden) for every entry
        evaluation: h_t = p_hidden * h_(t-1) + (1 - p_hidden) * h~_t
        LSTM: the same for c with p_cell; h~_t comes from the c~_t that is not zoned out

    Called like the cell inside, with the same results: ``h``, or ``(h, c)`` for an LSTM.

    Args:
        cell: ``nn.RNNCell``, ``nn.GRUCell`` or ``nn.LSTMCell``; its parameters stay its own.
        p_hidden: chance that an entry of the hidden state stays as it was.
        p_cell: the same for an LSTM's cell state; 0 for the others, which have none.

    Raises:
        TypeError: another kind of cell.
        ValueError: a chance outside [0, 1], or ``p_cell`` for a cell without cell state.

    Example:
        >>> cell = Zoneout(nn.GRUCell(3, 4), p_hidden=1.0)
        >>> h = torch.ones(2, 4)
        >>> bool((cell(torch.zeros(2, 3), h) == h).all())
        True

    Reference:
        Krueger et al. 2017, arXiv:1606.01305, section 3.
    """

    def __init__(
        self,
        cell: nn.RNNCell | nn.GRUCell | nn.LSTMCell,
        p_hidden: float = 0.05,
        p_cell: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(cell, nn.RNNCell | nn.GRUCell | nn.LSTMCell):
            raise TypeError(
                f"Zoneout wraps nn.RNNCell, nn.GRUCell or nn.LSTMCell, got {type(cell).__name__}; "
                f"for whole sequences take ZoneoutLSTM"
            )
        if p_cell and not isinstance(cell, nn.LSTMCell):
            raise ValueError(
                f"a {type(cell).__name__} has no cell state, got p_cell={p_cell}; leave it at 0"
            )
        self.cell = cell
        self.p_hidden = check_probability("Zoneout", "p_hidden", p_hidden)
        self.p_cell = check_probability("Zoneout", "p_cell", p_cell)

    def forward(self, input: Tensor, state: Tensor | _Pair | None = None) -> Tensor | _Pair:
        """Return the next state for ``input`` ``(N, in)`` or ``(in,)``; ``state`` None is zero."""
        if isinstance(self.cell, nn.LSTMCell):
            if state is None:
                zero = input.new_zeros(*input.shape[:-1], self.cell.hidden_size)
                state = (zero, zero)
            h, c = self.cell(input, state)  # pyright: ignore[reportArgumentType]
            return (
                zoneout(h, state[0], self.p_hidden, self.training),
                zoneout(c, state[1], self.p_cell, self.training),
            )
        if state is None:
            state = input.new_zeros(*input.shape[:-1], self.cell.hidden_size)
        new = self.cell(input, state)  # pyright: ignore[reportArgumentType]
        return zoneout(new, state, self.p_hidden, self.training)  # pyright: ignore[reportArgumentType]

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"p_hidden={self.p_hidden}, p_cell={self.p_cell}"


@brick(
    "dropout",
    "zoneout_lstm",
    aliases=("zoneoutlstm",),
    public="brickyard.nn",
    granularity="every entry of both states by itself, at each time step",
    summary="An LSTM over whole sequences whose states keep random entries; nn.LSTM's weights "
    "load.",
    use_when="An LSTM overfits its sequences, and the published recipe zones out.",
    avoid_when="Long sequences where speed counts: it steps in Python, nn.LSTM in one fused call "
    "(as it does here with both chances at 0).",
    best_for="Character-level language models; encoders of speech synthesis.",
    paper=_PAPER + ", arXiv:1606.01305",
    tune_first="p_cell 0.1 to 0.5, p_hidden 0.05: the paper's best on Penn Treebank are 0.5 and "
    "0.05.",
    cost="One product with the recurrent matrix a step, a dozen small operations beside it.",
    pairs_with=("orthogonal_", "variational_dropout"),
)
class ZoneoutLSTM(nn.LSTM):
    """Run an LSTM with zoneout over whole sequences.

    Math:
        i, f, g, o = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, through sigmoid (g: tanh)
        c~ = f * c_(t-1) + i * g,   h~ = o * tanh(c~)
        training: c_t, h_t keep entries of c_(t-1), h_(t-1) with chance p_cell, p_hidden
        evaluation: c_t = p_cell * c_(t-1) + (1 - p_cell) * c~, and h_t likewise

    Parameters have the names and shapes of ``nn.LSTM``, so that state dicts load both ways.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers on top of each other.
        bias: use the biases.
        batch_first: sequences are ``(N, T, features)``; otherwise ``(T, N, features)``.
        bidirectional: run a second set of weights backwards and join both outputs.
        p_hidden: chance that an entry of the hidden state stays as it was.
        p_cell: the same for the cell state.
        device: where the weights are made.
        dtype: their number format.

    Raises:
        ValueError: a chance outside [0, 1]; input or states of a wrong shape, or of no step.
        TypeError: a packed sequence, which only the fused form knows.

    Example:
        >>> lstm = ZoneoutLSTM(3, 4, p_hidden=0.05, p_cell=0.5, batch_first=True)
        >>> y, (h, c) = lstm(torch.zeros(2, 7, 3))
        >>> y.shape, h.shape
        (torch.Size([2, 7, 4]), torch.Size([1, 2, 4]))

    Reference:
        Krueger et al. 2017, arXiv:1606.01305, section 3.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        p_hidden: float = 0.05,
        p_cell: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first,
            bidirectional=bidirectional, device=device, dtype=dtype,
        )  # fmt: skip
        self.p_hidden = check_probability("ZoneoutLSTM", "p_hidden", p_hidden)
        self.p_cell = check_probability("ZoneoutLSTM", "p_cell", p_cell)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Tensor, hx: _Pair | None = None
    ) -> tuple[Tensor, _Pair]:
        """Return outputs of the last layer at all steps, and both states after the last.

        Args:
            input: ``(T, N, in)``, ``(N, T, in)`` with ``batch_first``, or ``(T, in)``.
            hx: states to start from, each ``(layers * directions, N, hidden)``; None for zero.
        """
        if not isinstance(input, Tensor):
            raise TypeError(
                f"ZoneoutLSTM takes a padded tensor, got {type(input).__name__}; unpack it with "
                f"torch.nn.utils.rnn.pad_packed_sequence and mask the loss"
            )
        if self.p_hidden == self.p_cell == 0:
            return super().forward(input, hx)
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size or not input.numel():
            raise ValueError(
                f"ZoneoutLSTM takes (T, N, in), (N, T, in) or (T, in) of at least one step, with "
                f"{self.input_size} features, got {tuple(input.shape)}"
            )
        single, swap = input.ndim == 2, self.batch_first and input.ndim == 3
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if swap else input
        states = (self.num_layers * (2 if self.bidirectional else 1), x.shape[1], self.hidden_size)
        if hx is None:
            zero = x.new_zeros(states)
            hx = (zero, zero)
        elif single:
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        if tuple(hx[0].shape) != states or tuple(hx[1].shape) != states:
            raise ValueError(
                f"ZoneoutLSTM starts from states {states} (layers * directions, N, hidden), got "
                f"{tuple(hx[0].shape)} and {tuple(hx[1].shape)}"
            )
        x, h, c = self._layers(x, *hx)
        if single:
            return x.squeeze(1), (h.squeeze(1), c.squeeze(1))
        return x.transpose(0, 1) if swap else x, (h, c)

    def _layers(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        names = [""] + ["_reverse"] * self.bidirectional
        last: list[_Pair] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction, name in enumerate(names):
                place = layer * len(names) + direction
                y, state = self._run(x, h[place], c[place], f"l{layer}{name}", direction == 1)
                outputs.append(y)
                last.append(state)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
        return x, torch.stack([s[0] for s in last]), torch.stack([s[1] for s in last])

    def _run(
        self, x: Tensor, h: Tensor, c: Tensor, name: str, backwards: bool
    ) -> tuple[Tensor, _Pair]:
        """Run one layer in one direction over ``(T, N, in)``."""
        recurrent = getattr(self, f"weight_hh_{name}")
        bias = (
            getattr(self, f"bias_ih_{name}") + getattr(self, f"bias_hh_{name}")
            if self.bias
            else None
        )
        steps = F.linear(x, getattr(self, f"weight_ih_{name}"), bias).unbind(0)
        outputs = []
        for step in reversed(steps) if backwards else steps:
            gates = step + F.linear(h, recurrent)
            i, f, g, o = gates.chunk(4, -1)
            new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = zoneout(torch.sigmoid(o) * torch.tanh(new), h, self.p_hidden, self.training)
            c = zoneout(new, c, self.p_cell, self.training)
            outputs.append(h)
        return torch.stack(outputs[::-1] if backwards else outputs), (h, c)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"{super().extra_repr()}, p_hidden={self.p_hidden}, p_cell={self.p_cell}"
