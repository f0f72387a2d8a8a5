"""Reverse digit strings with an encoder-decoder transformer and teacher forcing."""

import torch
from torch import nn

PAD, BOS, EOS, VOCAB = 0, 1, 2, 13


def make_batch(n, generator):
    lengths = torch.randint(3, 7, (n,), generator=generator)
    source = torch.full((n, 6), PAD)
    target = torch.full((n, 8), PAD)
    for i, k in enumerate(lengths.tolist()):
        digits = torch.randint(3, VOCAB, (k,), generator=generator)
        source[i, :k] = digits
        target[i, 0] = BOS
        target[i, 1 : k + 1] = digits.flip(0)
        target[i, k + 1] = EOS
    return source, target


class Seq2Seq(nn.Module):
    def __init__(self, width=48):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width, padding_idx=PAD)
        self.place = nn.Embedding(8, width)
        options = {"dim_feedforward": 96, "dropout": 0.0, "batch_first": True}
        encoder = nn.TransformerEncoderLayer(width, 4, **options)
        decoder = nn.TransformerDecoderLayer(width, 4, **options)
        self.encoder = nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, 1)
        self.out = nn.Linear(width, VOCAB)

    def add_position(self, tokens):
        return self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))

    def forward(self, source, target):
        n = target.shape[1]
        causal = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
        padding = source == PAD
        memory = self.encoder(self.add_position(source), src_key_padding_mask=padding)
        h = self.decoder(
            self.add_position(target),
            memory,
            tgt_mask=causal,
            memory_key_padding_mask=padding,
            tgt_key_padding_mask=target == PAD,
        )
        return self.out(h)


g = torch.Generator().manual_seed(0)
torch.manual_seed(0)
model = Seq2Seq()
criterion = nn.CrossEntropyLoss(ignore_index=PAD)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
val_source, val_target = make_batch(200, g)
for epoch in range(5):
    model.train()
    for _ in range(50):
        source, target = make_batch(32, g)
        logits = model(source, target[:, :-1])
        loss = criterion(logits.reshape(-1, VOCAB), target[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(val_source, val_target[:, :-1])
        val = criterion(logits.reshape(-1, VOCAB), val_target[:, 1:].reshape(-1)).item()
    print(f"epoch {epoch}: val {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in model.parameters()))
