"""Name the kinds of brick: their names, what the trainer supplies, what their cards must say."""

from __future__ import annotations

from dataclasses import dataclass

from brickyard.errors import CatalogError, near


@dataclass(frozen=True)
class Kind:
    """Describe one kind of brick.

    Args:
        name: the singular, as in ``@brick("loss", ...)`` and ``build("loss", ...)``.
        category: the plural, as in ``brickyard catalog losses`` and ``guides/losses.md``.
        title: the heading of its table.
        about: one line for the list of categories.
        injected: parameters that the trainer or the caller's code gives; never recipe options.
        facts: further fields that every card of this kind states by hand.
        compare: columns of ``catalog CATEGORY --compare``: fields, facts or derived facts.
    """

    name: str
    category: str
    title: str
    about: str
    injected: frozenset[str] = frozenset()
    facts: tuple[str, ...] = ()
    compare: tuple[str, ...] = ("options", "best_for", "avoid_when")


_SHAPES = frozenset(
    {"in_features", "out_features", "num_features", "num_channels", "normalized_shape", "dim"}
)

_TABLE = (
    Kind(
        "activation",
        "activations",
        "Activations",
        "Non-linearities between layers",
        _SHAPES,
        compare=("formula", "options", "cost", "best_for"),
    ),
    Kind(
        "normalization",
        "normalization",
        "Normalization",
        "Layers that fix the statistics of what flows through",
        _SHAPES | {"module"},
        ("shares",),
        ("shares", "options", "best_for", "avoid_when"),
    ),
    Kind(
        "residual",
        "residuals",
        "Residual connections",
        "Skip paths and their scales",
        _SHAPES | {"branch"},
    ),
    Kind(
        "dropout",
        "dropouts",
        "Dropouts",
        "Noise on units, weights, channels or paths",
        _SHAPES | {"linear", "cell", "input_size", "hidden_size"},
        ("granularity",),
        ("granularity", "options", "best_for", "avoid_when"),
    ),
    Kind(
        "initializer",
        "initializers",
        "Initializers",
        "Where weights start",
        frozenset({"tensor", "generator", "model", "layer", "batch"}),
        compare=("formula", "options", "best_for", "avoid_when"),
    ),
    Kind(
        "loss",
        "losses",
        "Losses",
        "What training makes small",
        frozenset(),
        ("output", "target"),
        ("formula", "output", "target", "options", "best_for"),
    ),
    Kind(
        "optimizer",
        "optimizers",
        "Optimizers",
        "How gradients become steps",
        frozenset({"params", "model_or_params", "model"}),
        ("known_issue",),
        ("formula", "state_bytes", "options", "best_for", "known_issue"),
    ),
    Kind(
        "clipping",
        "clipping",
        "Gradient clipping",
        "Bounds on gradients before the step",
        frozenset({"params", "parameters"}),
    ),
    Kind(
        "schedule",
        "schedules",
        "Schedules",
        "Factors of a hyperparameter over the run",
        compare=("formula", "options", "best_for", "avoid_when"),
    ),
    Kind(
        "regularizer",
        "regularization",
        "Regularization",
        "Penalties, constraints, averages, stopping",
        frozenset({"model", "params"}),
    ),
    Kind(
        "augmentation",
        "augmentation",
        "Augmentation",
        "Changes to samples that keep the label",
        frozenset({"generator", "classes"}),
    ),
    Kind("precision", "precision", "Precision", "Number formats of forward, backward and step"),
    Kind(
        "model",
        "models",
        "Reference models",
        "Small networks for the recipes",
        frozenset({"input_shape", "outputs", "noise", "output_shape"}),
    ),
    Kind(
        "data",
        "data",
        "Data",
        "Data sets and readers for your own",
        frozenset({"seed", "root", "on_error"}),
        ("task",),
        ("task", "options", "best_for"),
    ),
    Kind(
        "task",
        "tasks",
        "Tasks",
        "What is learnt from data: how a batch becomes a loss, and an output a prediction",
        frozenset({"data", "loss"}),
        ("takes",),
        ("takes", "options", "best_for"),
    ),
    Kind(
        "metric",
        "metrics",
        "Metrics",
        "What is reported, never trained on",
        frozenset({"outputs", "classes"}),
        ("task", "better"),
        ("formula", "task", "better", "best_for"),
    ),
    Kind("logger", "loggers", "Loggers", "Where a run's rows go besides its own folder"),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
#: Set by the trainer for any kind, so never an option of a recipe.
#: (Or deprecated by torch in favour of another option.)
ALWAYS_INJECTED = frozenset(
    {"self", "device", "dtype", "size_average", "reduce", "min_value", "max_value"}
)


def find_kind(name: str) -> Kind:
    """Return the kind called ``name``: singular, plural or title, in any case.

    Raises:
        CatalogError: no kind has that name; the message lists near ones.
    """
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    for kind in _TABLE:
        titles = {kind.name, kind.category, kind.title.lower().replace(" ", "_")}
        if wanted in titles | {kind.name + "s", kind.category + "s"}:
            return kind
    known = [kind.category for kind in _TABLE]
    hint = near(wanted, known) or f"; allowed: {', '.join(known)}"
    raise CatalogError(f"no category is called {name!r}{hint}")
