"""Character LSTM with truncated backpropagation through time."""

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import nn


def batchify(codes, rows):
    n = len(codes) // rows
    return codes[: n * rows].view(rows, n)


class CharLSTM(nn.Module):
    def __init__(self, vocab, embed=24, hidden=72):
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.encoder = nn.Embedding(vocab, embed)
        self.rnn = nn.LSTM(embed, hidden, batch_first=True)
        self.decoder = nn.Linear(hidden, vocab)

    def forward(self, tokens, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        return self.decoder(self.drop(output)), hidden


def repackage(hidden):
    return tuple(h.detach() for h in hidden)


def run(model, data, criterion, bptt=24, optimizer=None):
    model.train(optimizer is not None)
    hidden, total, count = None, 0.0, 0
    for i in range(0, data.shape[1] - 1, bptt):
        length = min(bptt, data.shape[1] - 1 - i)
        x, y = data[:, i : i + length], data[:, i + 1 : i + 1 + length]
        if optimizer is None:
            with torch.no_grad():
                logits, hidden = model(x, hidden)
                loss = criterion(logits.flatten(0, 1), y.flatten())
        else:
            logits, hidden = model(x, hidden)
            hidden = repackage(hidden)
            loss = criterion(logits.flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        total, count = total + loss.item() * length, count + length
    return total / count


torch.manual_seed(0)
text = (load_wine().DESCR + load_breast_cancer().DESCR + load_diabetes().DESCR).lower()
chars = sorted(set(text))
codes = torch.tensor([chars.index(c) for c in text])
train, val = batchify(codes[:9000], 8), batchify(codes[9000:], 4)
model = CharLSTM(len(chars))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(5):
    train_loss = run(model, train, nn.CrossEntropyLoss(), optimizer=optimizer)
    val_loss = run(model, val, nn.CrossEntropyLoss())
    print(f"| epoch {epoch} | train {train_loss:.3f} | val {val_loss:.3f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
