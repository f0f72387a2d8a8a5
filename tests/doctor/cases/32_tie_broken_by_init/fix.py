"""Word model whose output layer shares its weights with the embedding."""

import re
from dataclasses import dataclass

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from torch import nn


@dataclass
class Config:
    vocab_size: int = 0
    width: int = 32
    tie_word_embeddings: bool = True


class WordLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.rnn = nn.GRU(config.width, config.width, batch_first=True)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.head.weight = self.embed.weight
        self.apply(self.init_weights)

    @staticmethod
    def init_weights(module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)

    def forward(self, tokens):
        hidden, _ = self.rnn(self.embed(tokens))
        return self.head(hidden)


def main():
    torch.manual_seed(0)
    sources = load_digits, load_iris, load_wine, load_diabetes, load_breast_cancer
    words = re.findall(r"[a-z]+", " ".join(f().DESCR for f in sources).lower())
    vocabulary = {w: i for i, w in enumerate(sorted(set(words)))}
    tokens = torch.tensor([vocabulary[w] for w in words])
    n = (len(tokens) - 1) // 16 * 16
    x, y = tokens[:n].view(-1, 16), tokens[1 : n + 1].view(-1, 16)
    order = torch.randperm(len(x))
    train, val = order[:-16], order[-16:]

    model = WordLM(Config(vocab_size=len(vocabulary)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(10):
        model.train()
        for idx in train[torch.randperm(len(train))].split(8):
            optimizer.zero_grad()
            loss = loss_fn(model(x[idx]).transpose(1, 2), y[idx])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss = loss_fn(model(x[val]).transpose(1, 2), y[val]).item()
        size = sum(p.numel() for p in model.parameters())
        print(f"epoch {epoch}: val {val_loss:.4f} ({size} parameters)")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
