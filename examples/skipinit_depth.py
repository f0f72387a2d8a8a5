"""Fifty residual layers without normalization on digits: SkipInit trains them, plain sums do not.

A sum of a layer's input and output has about twice the variance of the input; fifty in a row reach
2^50, and one step at a usual rate ends in infinities. ResidualScale (SkipInit, De & Smith 2020)
multiplies each branch by a learned factor that starts at zero: the network begins as its first
layer and grows as deep as it needs. Same seed, same rate, same everything else.

Output (torch 2.13.0, CPU, half a minute):

    residual_scale  last loss    0.001   validation accuracy 0.961
    residual        last loss      nan   validation accuracy 0.100
"""

import torch

from brickyard import nn
from brickyard.train.data import TensorBatches, digits

torch.set_num_threads(1)  # matrices this small gain nothing from more, and the output is fixed
DEPTH, RATE, EPOCHS = 50, 0.03, 20
data = digits(val=0.2, seed=0)


def train(residual):
    """Train a plain residual MLP; print and return its accuracy on validation data."""
    torch.manual_seed(0)
    model = nn.MLP(data.input_shape, data.outputs, hidden=64, depth=DEPTH, residual=residual)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    batches = TensorBatches(data.train, 64, shuffle=True, seed=0)
    for epoch in range(EPOCHS):
        for x, y in batches.epoch(epoch):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        schedule.step()
        if not loss.isfinite():
            break  # nothing comes back from here
    with torch.inference_mode():
        accuracy = (model(data.val.x).argmax(1) == data.val.y).float().mean().item()
    print(f"{residual:15} last loss {loss.item():8.3f}   validation accuracy {accuracy:.3f}")
    return accuracy


with_skipinit = train("residual_scale")
without = train("residual")
if with_skipinit < 0.95 or without > 0.5:
    raise SystemExit("SkipInit should reach 95 %, and plain sums should fail below 50 %")
