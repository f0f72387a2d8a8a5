"""Tiny GPT trained on a text file's worth of characters."""

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocab, context, width=48, heads=3, layers=2):
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.ln = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(self, idx):
        positions = torch.arange(idx.shape[1], device=idx.device)
        return self.lm_head(self.ln(self.blocks(self.wte(idx) + self.wpe(positions))))


def get_batch(data, size, context):
    starts = torch.randint(len(data) - context - 1, (size,)).tolist()
    x = torch.stack([data[s : s + context] for s in starts])
    y = torch.stack([data[s + 1 : s + context + 1] for s in starts])
    return x, y


@torch.no_grad()
def estimate(model, data, context, rounds=5):
    model.eval()
    total = 0.0
    for _ in range(rounds):
        x, y = get_batch(data, 32, context)
        total += F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    model.train()
    return total / rounds


def main(steps=240, context=24):
    torch.manual_seed(1337)
    text = load_wine().DESCR + load_breast_cancer().DESCR + load_diabetes().DESCR
    chars = sorted(set(text))
    stoi = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([stoi[c] for c in text])
    train, val = data[:-1500], data[-1500:]
    model = GPT(len(chars), context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        x, y = get_batch(train, 16, context)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 60 == 59:
            val_loss = estimate(model, val, context)
            print(f"step {step + 1}: train {loss.item():.3f} val {val_loss:.3f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
