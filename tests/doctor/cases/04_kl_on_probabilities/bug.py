"""Distil a wide network into a narrow one."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


def batches(x, y, size):
    order = torch.randperm(len(x))
    for start in range(0, len(x), size):
        pick = order[start : start + size]
        yield x[pick], y[pick]


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).float().mean().item()


def train_teacher(teacher, x, y, epochs=10):
    optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
    for _ in range(epochs):
        teacher.train()
        for xb, yb in batches(x, y, 64):
            optimizer.zero_grad()
            F.cross_entropy(teacher(xb), yb).backward()
            optimizer.step()


def distil(student, teacher, x, y, epochs=15, temperature=2.0):
    criterion = nn.KLDivLoss(reduction="batchmean")
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    teacher.eval()
    for epoch in range(epochs):
        student.train()
        running, count = 0.0, 0
        for xb, _ in batches(x, y, 64):
            with torch.no_grad():
                soft = F.softmax(teacher(xb) / temperature, dim=1)
            optimizer.zero_grad()
            guess = F.softmax(student(xb) / temperature, dim=1)
            loss = criterion(guess, soft)
            loss.backward()
            optimizer.step()
            running, count = running + loss.item(), count + 1
        print(f"epoch {epoch}: distillation loss {running / count:.4f}")
    return running / count


def main():
    torch.manual_seed(3)
    data = load_digits()
    x = torch.tensor(data.data / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target)
    x, y, x_val, y_val = x[:1400], y[:1400], x[1400:], y[1400:]
    teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    student = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    train_teacher(teacher, x, y)
    print(f"teacher {accuracy(teacher, x_val, y_val):.3f}")
    loss = distil(student, teacher, x, y)
    print(f"student {accuracy(student, x_val, y_val):.3f}")
    print("final", loss, sum(p.double().sum().item() for p in student.parameters()))


if __name__ == "__main__":
    main()
