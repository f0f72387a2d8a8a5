"""A small convolutional network on 8x8 digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(7)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
dataset = TensorDataset(images, torch.tensor(digits.target))
train_set, test_set = random_split(dataset, [1500, 297])
train_loader = DataLoader(train_set, batch_size=50, shuffle=True)
test_loader = DataLoader(test_set, batch_size=297)

cnn = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(16 * 16, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(cnn.parameters(), lr=0.05, momentum=0.9)

for epoch in range(8):
    cnn.train()
    for batch, target in train_loader:
        loss = criterion(cnn(batch), target)
        loss.backward()
        optimizer.step()
    cnn.eval()
    with torch.no_grad():
        for batch, target in test_loader:
            output = cnn(batch)
            test_loss = criterion(output, target).item()
            accuracy = (output.argmax(1) == target).float().mean().item()
    print(f"[{epoch + 1}] test loss: {test_loss:.3f}  accuracy: {accuracy:.3f}")

print("final", test_loss, sum(p.double().sum().item() for p in cnn.parameters()))
