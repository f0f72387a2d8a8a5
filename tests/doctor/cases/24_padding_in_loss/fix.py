"""Next-word model on short sentences of different lengths, padded into batches."""

import random

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

PAD, BOS, EOS = 0, 1, 2
ADJECTIVES = ["red", "green", "small", "large", "old"]
NOUNS = ["cat", "dog", "bird", "house", "car", "tree"]
VERBS = ["sees", "likes", "chases", "avoids"]


def sentence(rng):
    words = ["the", rng.choice(NOUNS), rng.choice(VERBS)]
    for _ in range(rng.choice([0, 0, 0, 1, 5, 9])):
        words += ["the", rng.choice(ADJECTIVES), rng.choice(NOUNS), "and"]
    return [*words, "the", rng.choice(NOUNS)]


class WordModel(nn.Module):
    def __init__(self, size, width=32):
        super().__init__()
        self.embed = nn.Embedding(size, width, padding_idx=PAD)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, size)

    def forward(self, tokens):
        hidden, _ = self.rnn(self.embed(tokens))
        return self.out(hidden)


def collate(sentences):
    batch = pad_sequence(sentences, batch_first=True, padding_value=PAD)
    return batch[:, :-1], batch[:, 1:]


def main():
    rng = random.Random(0)
    torch.manual_seed(0)
    words = sorted({"the", "and", *ADJECTIVES, *NOUNS, *VERBS})
    ids = {w: i + 3 for i, w in enumerate(words)}
    corpus = [torch.tensor([BOS, *[ids[w] for w in sentence(rng)], EOS]) for _ in range(1100)]
    train, val = corpus[:900], corpus[900:]
    model = WordModel(len(words) + 3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(4):
        model.train()
        rng.shuffle(train)
        for i in range(0, len(train), 20):
            x, y = collate(train[i : i + 20])
            optimizer.zero_grad()
            loss = criterion(model(x).transpose(1, 2), y)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            x, y = collate(val)
            val_loss = criterion(model(x).transpose(1, 2), y).item()
        print(f"epoch {epoch}: val {val_loss:.4f} perplexity {2.718281828**val_loss:.2f}")
    print("final", val_loss, sum(p.double().sum().item() for p in model.parameters()))


if __name__ == "__main__":
    main()
