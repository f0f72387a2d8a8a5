"""A recipe in Python with parts of one's own: a model and a penalty, beside bricks by key."""

import tempfile

import torch

from brickyard.train import Recipe, train


class TwoPaths(torch.nn.Module):
    """Add a linear and a curved path."""

    def __init__(self, input_shape, outputs, width: int = 32):
        super().__init__()
        self.straight = torch.nn.Linear(input_shape[0], outputs)
        self.curved = torch.nn.Sequential(
            torch.nn.Linear(input_shape[0], width), torch.nn.Tanh(), torch.nn.Linear(width, outputs)
        )

    def forward(self, x):
        return self.straight(x) + self.curved(x)


class SmallWeights:
    """Add the weights' squares to the loss."""

    def __init__(self, weight: float = 1e-3):
        self.weight = weight

    def penalty(self, model):
        return self.weight * sum(p.square().sum() for p in model.parameters() if p.ndim > 1)


recipe = Recipe(
    data="diabetes",
    model={"target": "__main__:TwoPaths", "width": 16},
    loss="huber",
    optimizer={"name": "adamw", "lr": 3e-3},
    regularizers=[{"target": "__main__:SmallWeights"}, {"name": "early_stopping", "patience": 8}],
    metrics=["mean_absolute_error", "r2"],
    budget="60ep",
)
result = train(recipe, out=tempfile.mkdtemp())
best = result.summary["best"]["val"]
print(f"mean absolute error {best['mean_absolute_error']:.1f}, R2 {best['r2']:.2f}")
print(f"the page: {result.run.report}")
if best["r2"] < 0.3:
    raise SystemExit("the network should explain 30 % of the variance")
