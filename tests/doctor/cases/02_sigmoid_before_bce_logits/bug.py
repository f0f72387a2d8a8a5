"""Tumour classification (malignant or benign) from 30 cell measurements."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn


def load():
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=1, stratify=y)
    scaler = StandardScaler().fit(x_train)
    arrays = scaler.transform(x_train), scaler.transform(x_test), y_train, y_test
    return [torch.tensor(a, dtype=torch.float32) for a in arrays]


def build_model():
    return nn.Sequential(
        nn.Linear(30, 32),
        nn.ReLU(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 1),
        nn.Sigmoid(),
    )


def main():
    torch.manual_seed(1)
    x_train, x_test, y_train, y_test = load()
    model = build_model()
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(20):
        model.train()
        order = torch.randperm(len(x_train))
        for batch in order.split(16):
            prediction = model(x_train[batch]).squeeze(1)
            loss = criterion(prediction, y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            prediction = model(x_test).squeeze(1)
            test_loss = criterion(prediction, y_test).item()
            accuracy = ((prediction > 0.5) == (y_test > 0.5)).float().mean().item()
        print(f"{epoch:2d}  loss {test_loss:.4f}  accuracy {accuracy:.3f}")
    checksum = sum(p.double().abs().sum().item() for p in model.parameters())
    print("final", test_loss, checksum)


if __name__ == "__main__":
    main()
