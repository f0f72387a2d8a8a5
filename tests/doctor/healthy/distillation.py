"""A small student learns from the soft targets of a teacher and from the labels."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
x_val, y_val = x[1400:], y[1400:]
x, y = x[:1400], y[:1400]
teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
student = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def distillation_loss(student_logits, teacher_logits, labels, T=3.0, alpha=0.7):
    soft = F.kl_div(
        F.log_softmax(student_logits / T, dim=1),
        F.softmax(teacher_logits / T, dim=1),
        reduction="batchmean",
    )
    return alpha * T * T * soft + (1 - alpha) * F.cross_entropy(student_logits, labels)


optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
teacher.train()
for _ in range(6):
    for idx in torch.randperm(1400).split(50):
        optimizer.zero_grad()
        F.cross_entropy(teacher(x[idx]), y[idx]).backward()
        optimizer.step()

teacher.eval()
optimizer = torch.optim.Adam(student.parameters(), lr=4e-3)
for epoch in range(8):
    student.train()
    for idx in torch.randperm(1400).split(50):
        with torch.no_grad():
            guide = teacher(x[idx])
        loss = distillation_loss(student(x[idx]), guide, y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():
        val = F.cross_entropy(student(x_val), y_val).item()
    print(f"epoch {epoch}: {val:.4f}")

print("final", val, sum(p.double().sum().item() for p in student.parameters()))
