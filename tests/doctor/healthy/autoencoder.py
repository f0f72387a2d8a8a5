"""Denoising convolutional autoencoder."""

import torch
from sklearn.datasets import load_digits
from torch import nn, optim

torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1) / 16
train, test = images[:1400], images[1400:]

encoder = nn.Sequential(
    nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ELU(), nn.Conv2d(16, 8, 3, stride=2, padding=1)
)
decoder = nn.Sequential(
    nn.ConvTranspose2d(8, 16, 2, stride=2), nn.ELU(), nn.ConvTranspose2d(16, 1, 2, stride=2)
)
autoencoder = nn.Sequential(encoder, nn.ELU(), decoder, nn.Sigmoid())
optimizer = optim.RMSprop(autoencoder.parameters(), lr=2e-3)
mse = nn.MSELoss()
noise = torch.Generator().manual_seed(1)
test_noisy = test + 0.2 * torch.randn(test.shape, generator=noise)

for epoch in range(6):
    autoencoder.train()
    for idx in torch.randperm(len(train)).split(28):
        clean = train[idx]
        noisy = clean + 0.2 * torch.randn(clean.shape, generator=noise)
        optimizer.zero_grad()
        loss = mse(autoencoder(noisy), clean)
        loss.backward()
        optimizer.step()
    autoencoder.eval()
    with torch.no_grad():
        test_loss = mse(autoencoder(test_noisy), test).item()
    print(f"epoch {epoch}: {test_loss:.5f}")

print("final", test_loss, sum(p.double().sum().item() for p in autoencoder.parameters()))
