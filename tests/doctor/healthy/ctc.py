"""Read a row of digit images as a string, with CTC."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def strips(images, labels, n, generator):
    """Glue four digits with gaps into an 8 x 40 strip."""
    pick = torch.randint(len(labels), (n, 4), generator=generator)
    canvas = torch.zeros(n, 8, 40)
    for k in range(4):
        canvas[:, :, 10 * k + 1 : 10 * k + 9] = images[pick[:, k]]
    return canvas, labels[pick] + 1


class Reader(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(8, 48, 5, stride=2, padding=2), nn.ReLU())
        self.rnn = nn.GRU(48, hidden, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, 11)

    def forward(self, x):
        h = self.conv(x).permute(2, 0, 1)
        h, _ = self.rnn(h)
        return self.fc(h).log_softmax(dim=2)


torch.manual_seed(0)
g = torch.Generator().manual_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
labels = torch.tensor(digits.target)
x, y = strips(images[:1400], labels[:1400], 1000, g)
x_val, y_val = strips(images[1400:], labels[1400:], 100, g)
model = Reader()
ctc = nn.CTCLoss(blank=0)
optimizer = torch.optim.Adam(model.parameters(), lr=8e-3)


def loss_of(x, y):
    log_probs = model(x)
    steps = torch.full((len(x),), log_probs.shape[0])
    return ctc(log_probs, y, steps, torch.full((len(x),), 4))


for epoch in range(7):
    model.train()
    for idx in torch.randperm(1000, generator=g).split(25):
        optimizer.zero_grad()
        loss = loss_of(x[idx], y[idx])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val = loss_of(x_val, y_val).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
