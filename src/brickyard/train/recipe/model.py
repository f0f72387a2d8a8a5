"""The fields of a recipe and their types."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from brickyard.schedules import Length

_SAFE_NAME = re.compile(r"[\w.-]+")
_SECONDS = re.compile(r"\d+(\.\d+)?s")

#: Fields that hold one brick, and fields that hold a list of them, with the bricks' kinds.
ONE = {
    "data": "data", "task": "task", "model": "model", "loss": "loss", "optimizer": "optimizer",
    "clipping": "clipping", "precision": "precision",
}  # fmt: skip
MANY = {
    "schedule": "schedule", "regularizers": "regularizer", "augmentation": "augmentation",
    "metrics": "metric", "loggers": "logger",
}  # fmt: skip

#: Options of bricks that are bricks themselves, with their kinds.
NESTED = {
    ("optimizer", "lookahead"): {"inner": "optimizer"},
    ("task", "gan"): {"critic_optimizer": "optimizer", "penalty": "loss"},
    ("model", "generator_and_critic"): {"generator": "model", "critic": "model"},
}
#: Optimizers that the training loop does not drive, and what to do instead.
REFUSED = {
    "cma_es": "cma_es searches without gradients, by a matrix of n x n numbers for n weights, so "
    "no recipe trains a network with it; in a script: brickyard.optim.CMAES(params, sigma) with "
    "fit(loss), or ask and tell"
}


class Component(BaseModel):
    """Name one brick and its options, or the user's own object by ``target``.

    Args:
        name: key of a brick.
        target: ``"package.module:object"``, instead of a name.
        options: everything else.
    """

    model_config = ConfigDict(frozen=True)

    name: str = ""
    target: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def parse(cls, given: Any) -> Component:
        """Read ``"adamw"``, ``{"name": "adamw", "lr": 1e-3}`` or ``{"target": "my.module:make"}``.

        Raises:
            ValueError: neither or both of name and target, or another type.
        """
        if isinstance(given, Component):
            return given
        if isinstance(given, str):
            given = {"name": given}
        rule = "give a brick's name, {name: NAME, options...} or {target: 'package.module:object'}"
        if not isinstance(given, dict):
            raise ValueError(f"{rule}; got {given!r}")
        options = dict(given)
        name, target = options.pop("name", ""), options.pop("target", "")
        if name and not (isinstance(target, str) and (":" in target or not target)):
            options["target"], target = target, ""  # an option of that name, of gradient_penalty
        if bool(name) == bool(target) or not isinstance(name, str) or not isinstance(target, str):
            what = "both name and target" if name and target else f"{given!r}"
            raise ValueError(f"{rule}; got {what}")
        return cls(name=name, target=target, options=options)

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a recipe writes it."""
        head = {"name": self.name} if self.name else {"target": self.target}
        return {**head, **self.options}

    @property
    def label(self) -> str:
        """Return what to call it in messages."""
        return self.name or self.target


def _listed(given: Any) -> Any:
    """Read one brick or many; nothing, as `metrics:` in YAML or an override of null, is none."""
    if given is None:
        return []
    many = given if isinstance(given, list | tuple) else [given]
    return [Component.parse(one) for one in many]


One = Annotated[Component, BeforeValidator(Component.parse)]
Many = Annotated[list[Component], BeforeValidator(_listed)]


def _check_length(given: Any) -> Any:
    rule = f"give a number of steps (2000) or epochs ('5ep'); got {given!r}"
    try:
        length = Length.parse(given)
    except ValueError:
        raise ValueError(rule) from None
    if length.unit not in ("steps", "ep"):
        raise ValueError(rule)
    return given


def _check_often(given: Any) -> Any:
    if isinstance(given, str) and _SECONDS.fullmatch(given):
        return given
    try:
        return _check_length(given)
    except ValueError:
        rule = "give seconds ('30s'), steps (2000) or epochs ('5ep')"
        raise ValueError(f"{rule}; got {given!r}") from None


Often = Annotated[int | str, BeforeValidator(_check_often)]
Steps = Annotated[int | str, BeforeValidator(_check_length)]


def _check_no_decay(given: Any) -> Any:
    patterns = isinstance(given, list | tuple) and given and all(isinstance(p, str) for p in given)
    if given not in ("auto", "none") and not patterns:
        raise ValueError(
            f"give auto, none, or a list of name patterns such as ['*.bias']; got {given!r}"
        )
    return given


def _check_overrides(given: Any) -> Any:
    if isinstance(given, dict) and all(isinstance(v, dict) and v for v in given.values()):
        return given
    raise ValueError(
        f"give name patterns and options, such as {{'head.*': {{lr: 1.0e-2}}}}; got {given!r}"
    )


def _check_telemetry(given: Any) -> Any:
    if isinstance(given, bool):
        return given
    try:
        return _check_length(given)
    except ValueError:
        rule = "give true, false, or a distance in steps (100) or epochs ('1ep')"
        raise ValueError(f"{rule}; got {given!r}") from None


class Groups(BaseModel):
    """Say which parameters get other options than the optimizer's own.

    Args:
        no_decay: what weight decay leaves out: ``"auto"`` (biases, normalization layers and all
            that has fewer than two dimensions), ``"none"``, or name patterns such as ``"*.bias"``.
        layer_decay: factor of the rate per layer below the last, for fine-tuning.
        overrides: name pattern to options of the parameters that it matches; later ones win.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    no_decay: Annotated[Any, BeforeValidator(_check_no_decay)] = "auto"
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    overrides: Annotated[dict[str, Any], BeforeValidator(_check_overrides)] = Field(
        default_factory=dict
    )


def _check_groups(given: Any) -> Any:
    if isinstance(given, dict | Groups):
        return given
    raise ValueError(
        f"give any of {', '.join(Groups.model_fields)}, such as {{no_decay: none}}; got {given!r}"
    )


class Keep(BaseModel):
    """Say which checkpoints stay.

    Args:
        last: how many resume points; 2 or more have one to go on from when the newest is damaged.
        best: how many weights, of the best evaluations by ``monitor``.
        every: distance between resume points that are never removed: ``"5ep"`` or steps.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    last: int = Field(default=2, ge=1)
    best: int = Field(default=1, ge=1)
    every: Steps | None = None


def _check_keep(given: Any) -> Any:
    if isinstance(given, dict | Keep):
        return given
    raise ValueError(
        f"give any of {', '.join(Keep.model_fields)}, such as {{best: 3, every: 5ep}}; "
        f"got {given!r}"
    )


def _check_nonfinite(given: Any) -> Any:
    skips = given.get("skip") if isinstance(given, dict) and set(given) == {"skip"} else 0
    if given != "stop" and not (type(skips) is int and skips >= 1):
        raise ValueError(
            f"give stop, or {{skip: N}} to leave out up to N steps in a row; got {given!r}"
        )
    return given


_COMPILE = ("backend", "mode", "dynamic", "fullgraph", "options")


def _check_compile(given: Any) -> Any:
    if isinstance(given, bool) or (isinstance(given, dict) and given and {*given} <= {*_COMPILE}):
        return given
    raise ValueError(f"give true, false, or any of {', '.join(_COMPILE)}; got {given!r}")


def _check_distillation(given: Any) -> Any:
    known = {"teacher", "temperature", "weight"}
    if given is None or (isinstance(given, dict) and "teacher" in given and {*given} <= known):
        return given
    raise ValueError(
        "give {teacher: RUN_FOLDER, temperature: 4.0, weight: 0.5}; the teacher is a run, an "
        f"exported folder or {{target: 'package.module:make'}}; got {given!r}"
    )


def _check_layers(given: Any) -> Any:
    many = given if isinstance(given, list | tuple) else [given]
    if given is None or (many and all(isinstance(one, str) and one for one in many)):
        return given
    raise ValueError(f"give auto, or name patterns such as ['body.*']; got {given!r}")


class Recipe(BaseModel):
    """Hold everything that decides a training run.

    Args:
        data: what to train on.
        task: what is learnt from it; goes without saying for labels and numbers.
        model: the network; its input shape and number of outputs come from the data.
        loss: what training makes small.
        optimizer: how gradients become steps.
        groups: parameters with other options: what is not decayed, rates by depth or by name.
        schedule: pieces of the learning rate's schedule, run one after the other. Any number of
            the optimizer can have one too: ``weight_decay: {base: 0.1, schedule: [cosine]}``.
        clipping: bound on the gradients; none when left out.
        regularizers: what acts beside the loss, such as early stopping.
        augmentation: what is done to training batches, in order.
        metrics: what is reported of the validation split; one that is there already, with other
            options, is called by them too: ``accuracy``, then ``accuracy_top_k_5``.
        monitor: the validation metric that picks the best checkpoint; the first of ``metrics``
            (or the loss) when empty.
        name: name of the run's folder.
        budget: length of training: ``"20ep"`` or a number of steps.
        batch_size: samples a batch, over all processes.
        accumulate: batches a step: the step is that of one batch as large as all of them, but for
            layers and losses that look at a batch as a whole (batch norm, contrastive losses).
        eval_batch_size: samples at a time when evaluating.
        evaluate_every: distance between evaluations: ``"1ep"`` or steps.
        checkpoint_every: distance between checkpoints: ``"30s"``, ``"1ep"`` or steps. The end of a
            run and Ctrl-C always write one.
        keep: which checkpoints stay, such as ``{last: 3, best: 5, every: 10ep}``: the last resume
            points, the weights of the best evaluations, and a resume point at every such distance,
            for good. The last two and the best one when left out.
        loggers: where rows go besides ``metrics.jsonl``, such as ``[tensorboard, csv_log]``.
        log_every: steps between the training rows.
        telemetry: look at every layer's gradient, step and weights: ``true`` whenever a training
            row is due, or at a distance such as 100 or ``1ep``. The ratios of steps to weights get
            into the training rows, the norms of every parameter into ``telemetry.jsonl``, and both
            to the loggers. Such a step takes a tenth to a quarter longer.
        doctor: look at the first steps closely, and tell what is wrong in them.
        workers: processes that load data sets which do not fit in memory.
        prefetch: batches made ahead, by each worker, or by a thread where there are augmentations
            and a core has nothing else to do; 0 for none.
        on_error: what becomes of samples that cannot be read from data sets which do not fit in
            memory: ``"stop"``, or ``"skip"`` them; they are counted and told.
        precision: number formats: fp32, bf16, fp16 ... (``brickyard catalog precision``).
        on_nonfinite: what a loss or gradient that is not finite does: ``"stop"`` ends the run
            before its step with a diagnosis; ``{skip: 3}`` leaves out up to three such steps in a
            row and counts them. A step left out advances nothing but the data.
        distillation: a teacher beside the labels: ``{teacher: RUN, temperature: 4.0, weight: 0.5}``
            with a run folder, an exported folder or ``{target: "package.module:make"}``; the rest
            of the loss, ``1 - weight``, is the recipe's own.
        checkpoint_layers: layers that keep their inputs only and are computed again going backward,
            as name patterns or ``auto``: less memory for a third more computation, the same bits.
        compile: ``true`` or options of ``torch.compile``, such as ``{mode: max-autotune}``.
        channels_last: lay images out with channels last; faster for convolutions on many machines.
        distributed: how processes that torchrun started share the work: ``"ddp"``, each with the
            whole model, or ``"fsdp"``, each with a part of it; one process alone trains as usual.
        sync_batch_norm: with several processes, let batch norms normalize by the whole batch, as
            one process would; ``false`` saves two small messages a layer and normalizes parts.
        device: ``"auto"`` takes an accelerator when there is one.
        threads: threads of torch on the CPU; torch's own choice when left out.
        seed: decides the initial weights, the order of the samples and all other draws.
        split_seed: decides which samples are held out for validation, and what data draws; other
            seeds train on the same samples and are measured on the same ones.

    Example:
        >>> recipe = Recipe(data="digits", model="mlp", loss="cross_entropy")
        >>> recipe.optimizer.name
        'adamw'
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    data: One
    task: One | None = None
    model: One
    loss: One
    optimizer: One = Component(name="adamw")
    groups: Annotated[Groups, BeforeValidator(_check_groups)] = Groups()
    schedule: Many = Field(default_factory=list)
    clipping: One | None = None
    regularizers: Many = Field(default_factory=list)
    augmentation: Many = Field(default_factory=list)
    metrics: Many = Field(default_factory=list)
    monitor: str = ""
    name: str = "run"
    budget: Steps = "10ep"
    batch_size: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)
    eval_batch_size: int = Field(512, ge=1)
    evaluate_every: Steps = "1ep"
    checkpoint_every: Often = "30s"
    keep: Annotated[Keep, BeforeValidator(_check_keep)] = Keep()
    loggers: Many = Field(default_factory=list)
    log_every: int = Field(10, ge=1)
    telemetry: Annotated[bool | int | str, BeforeValidator(_check_telemetry)] = False
    doctor: bool = True
    workers: int = Field(0, ge=0)
    prefetch: int = Field(2, ge=0)
    on_error: Literal["stop", "skip"] = "stop"
    precision: One = Component(name="fp32")
    on_nonfinite: Annotated[Any, BeforeValidator(_check_nonfinite)] = "stop"
    distillation: Annotated[Any, BeforeValidator(_check_distillation)] = None
    checkpoint_layers: Annotated[Any, BeforeValidator(_check_layers)] = None
    compile: Annotated[Any, BeforeValidator(_check_compile)] = False
    channels_last: bool = False
    distributed: Literal["ddp", "fsdp"] = "ddp"
    sync_batch_norm: bool = True
    device: str = "auto"
    threads: int | None = Field(None, ge=1, le=1024)
    seed: int = Field(0, ge=0, lt=2**32)
    split_seed: int = Field(0, ge=0, lt=2**32)

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        if not _SAFE_NAME.fullmatch(name) or set(name) == {"."}:
            raise ValueError(f"a name has letters, digits, '-', '_' and '.' only; got {name!r}")
        return name

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, as YAML holds it."""
        plain: dict[str, Any] = {}
        for field in type(self).model_fields:
            value = getattr(self, field)
            if isinstance(value, Component):
                value = value.to_dict()
            elif isinstance(value, Groups | Keep):
                value = value.model_dump()
            elif isinstance(value, list):
                value = [one.to_dict() if isinstance(one, Component) else one for one in value]
            plain[field] = _plain(value)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
