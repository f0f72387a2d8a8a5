"""A decoder-only transformer on text; the model computes its own loss from labels."""

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import nn
from torch.utils.data import DataLoader, Dataset


class TextDataset(Dataset):
    def __init__(self, codes, length):
        self.codes, self.length = codes, length

    def __len__(self):
        return (len(self.codes) - self.length - 1) // 16

    def __getitem__(self, i):
        chunk = self.codes[16 * i : 16 * i + self.length + 1]
        return chunk[:-1], chunk[1:]


class Decoder(nn.Module):
    def __init__(self, vocab, length, width=48, heads=4, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, input_ids, labels=None):
        h = self.tokens(input_ids) + self.positions
        h = self.blocks(h, mask=self.mask, is_causal=True)
        logits = self.head(self.norm(h))
        if labels is None:
            return logits
        shift_logits = logits[:, :-1].flatten(0, 1)
        shift_labels = labels[:, 1:].flatten()
        return F.cross_entropy(shift_logits, shift_labels), logits


torch.manual_seed(0)
text = "".join(f().DESCR for f in (load_digits, load_wine, load_breast_cancer, load_diabetes))
chars = sorted(set(text))
codes = torch.tensor([chars.index(c) for c in text])
train = DataLoader(TextDataset(codes[:-1500], 32), batch_size=16, shuffle=True)
val = DataLoader(TextDataset(codes[-1500:], 32), batch_size=64)
model = Decoder(len(chars), 32)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(4):
    model.train()
    for input_ids, labels in train:
        loss, _ = model(input_ids, labels=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        losses, right, count = [], 0, 0
        for input_ids, labels in val:
            loss, logits = model(input_ids, labels=labels)
            losses.append(loss.item())
            right += (logits[:, :-1].argmax(-1) == input_ids[:, 1:]).sum().item()
            count += input_ids[:, 1:].numel()
    val_loss = sum(losses) / len(losses)
    print(f"epoch {epoch}: perplexity {math.exp(val_loss):.2f} next char {right / count:.3f}")

print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))
