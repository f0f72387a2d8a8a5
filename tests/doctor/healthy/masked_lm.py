"""BERT-style masking over records: products, each followed by its department."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

IGNORE = -100
PRODUCTS, DEPARTMENTS = 24, 6


def records(n, length=6):
    """A product's department is its number modulo six; departments come after the products."""
    products = torch.randint(PRODUCTS, (n, length))
    departments = PRODUCTS + products % DEPARTMENTS
    return torch.stack([products, departments], dim=2).flatten(1)


class Bert(nn.Module):
    def __init__(self, vocab, length, width=48):
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 96, dropout=0.05, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, vocab)

    def forward(self, x):
        positions = torch.arange(x.shape[1]).expand_as(x)
        return self.head(self.encoder(self.token(x) + self.position(positions)))


def mask(tokens, mask_id, vocab, generator=None):
    labels = tokens.clone()
    chosen = torch.rand(tokens.shape, generator=generator) < 0.15
    labels[~chosen] = IGNORE
    dice = torch.rand(tokens.shape, generator=generator)
    inputs = torch.where(chosen & (dice < 0.8), torch.full_like(tokens, mask_id), tokens)
    random = torch.randint(vocab, tokens.shape, generator=generator)
    return torch.where(chosen & (dice > 0.9), random, inputs), labels


def main():
    torch.manual_seed(0)
    vocab = PRODUCTS + DEPARTMENTS
    rows = records(760)
    train = DataLoader(TensorDataset(rows[:-60]), batch_size=16, shuffle=True)
    model = Bert(vocab + 1, rows.shape[1])
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    held_out, held_labels = mask(rows[-60:], vocab, vocab, torch.Generator().manual_seed(0))
    for epoch in range(10):
        model.train()
        for (tokens,) in train:
            inputs, labels = mask(tokens, vocab, vocab)
            loss = criterion(model(inputs).transpose(1, 2), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val = criterion(model(held_out).transpose(1, 2), held_labels).item()
        print(f"epoch {epoch}: {val:.4f}")
    print("final", val, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
