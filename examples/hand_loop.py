"""Single bricks in a loop written by hand: digits, a small network, warmup and cosine, clipping."""

import torch

from brickyard import clip, losses, nn, optim, regularize, schedules
from brickyard.train.data import TensorBatches, digits

torch.manual_seed(0)
data = digits(val=0.2, seed=0)
batches = TensorBatches(data.train, 64, shuffle=True, seed=0)

model = nn.MLP(data.input_shape, data.outputs, hidden=64, depth=2, activation="gelu")
loss_function = losses.CrossEntropyLoss(label_smoothing=0.05)
optimizer = optim.AdamW(model, lr=4e-3, weight_decay=0.05)
epochs = 15
scheduler = (schedules.warmup("5%") >> schedules.cosine()).bind(
    optimizer, total=epochs * len(batches)
)
stopping = regularize.EarlyStopping(patience=5, mode="max")

for epoch in range(epochs):
    model.train()
    for x, y in batches.epoch(epoch):
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        norm = clip.clip_by_global_norm(model.parameters(), 1.0)
        if norm.isfinite():  # one bad batch costs its own step and nothing else
            optimizer.step()
        scheduler.step()
    model.eval()
    with torch.inference_mode():
        accuracy = (model(data.val.x).argmax(1) == data.val.y).float().mean().item()
    print(f"epoch {epoch + 1:2}  loss {loss.item():.3f}  accuracy {accuracy:.3f}")
    if stopping.update(accuracy):
        break

if accuracy < 0.95:
    raise SystemExit("the network should have reached 95 %")
