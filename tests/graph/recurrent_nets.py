import torch
from torch import nn


class Layers(nn.Module):
    """A recurrent layer over (samples, steps, 5), its output and every last state used."""

    def __init__(self, kind, head=True, **options):
        super().__init__()
        self.rnn = kind(5, 6, batch_first=True, **options)
        width = (options.get("proj_size") or 6) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 4) if head else None

    def forward(self, x):
        y, states = self.rnn(x)
        return (y, states) if self.head is None else self.head(y[:, -1])


class Unrolled(nn.Module):
    """A cell, called at every step, from zeros or from a learned state."""

    def __init__(self, kind, learned=False):
        super().__init__()
        self.cell, self.head = kind(5, 6), nn.Linear(6, 4)
        self.start = nn.Parameter(torch.randn(1, 6)) if learned else None

    def forward(self, x):
        state = x.new_zeros(x.shape[0], 6) if self.start is None else self.start.expand(x.shape[0], -1)
        memory = state
        for t in range(x.shape[1]):
            if isinstance(self.cell, nn.LSTMCell):
                state, memory = self.cell(x[:, t], (state, memory))
            else:
                state = self.cell(x[:, t], state)
        return self.head(state)


NETS = {
    "lstm": lambda **more: Layers(nn.LSTM, **more),
    "deep_lstm": lambda **more: Layers(nn.LSTM, num_layers=2, dropout=0.5, **more),
    "projected_lstm": lambda **more: Layers(nn.LSTM, proj_size=3, bidirectional=True, **more),
    "bidirectional_gru": lambda **more: Layers(nn.GRU, num_layers=2, bidirectional=True, **more),
    "no_bias_gru": lambda **more: Layers(nn.GRU, bias=False, **more),
    "rnn_tanh": lambda **more: Layers(nn.RNN, **more),
    "rnn_relu": lambda **more: Layers(nn.RNN, nonlinearity="relu", bias=False, **more),
}
CELLS = {
    "lstm_cell": lambda **more: Unrolled(nn.LSTMCell, **more),
    "gru_cell": lambda **more: Unrolled(nn.GRUCell, **more),
    "rnn_cell": lambda **more: Unrolled(nn.RNNCell, **more),
}
