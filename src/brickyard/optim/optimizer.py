"""The optimizer: a ``torch.optim.Optimizer`` that runs a chain of rules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch

from brickyard.errors import near
from brickyard.optim import backends, state
from brickyard.optim.binding import number
from brickyard.optim.chain import Chain, chain, matches
from brickyard.optim.engine import Engine, Setup
from brickyard.optim.hooks import Hooks, light
from brickyard.optim.plan import Flags
from brickyard.optim.ranges import check_option, declared
from brickyard.optim.rule import Names, Slot

#: Options of ``torch.optim`` that choose an implementation; here that is ``backend=``.
_TORCHS = ("foreach", "fused", "capturable", "differentiable")
_MISSING = object()


class _Watched(Names):
    """Give a group's options by attribute and note which were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__("the parameter group", values)
        self.__dict__["read"] = {}

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        self.__dict__["read"][name] = value
        return value


class Optimizer(Hooks, torch.optim.Optimizer):
    """Run a chain of rules over parameters, as one pass over memory where that is possible.

    A drop-in ``torch.optim.Optimizer``: groups, closures, schedulers, hooks, ``GradScaler`` and
    ``state_dict`` work as in torch. ``p.grad`` is never changed.

    Math:
        u = g;  u = piece(u, p, state) for each piece;  p = p - lr*u

    Args:
        params: a module, ``module.named_parameters()``, parameters, or groups of these. With names,
            state is matched by name, and ``where=`` patterns work.
        chain: pieces from ``chain(...)``; named optimizers bring their own.
        lr: learning rate, or a schedule ``steps taken -> rate``; times the chain's own ``lr``
            where that is a schedule.
        maximize: climb instead of descending; groups may differ in it.
        backend: ``"auto"``, ``"native"``, ``"foreach"``, ``"compiled"`` or ``"eager"``.
        master_weights: keep an fp32 copy of half-precision parameters and step on that.
        state_dtype: storage type of the state; None for the parameter's. Arithmetic is in fp32 in
            any case, but means kept in bfloat16 stop following changes below 1/256 of their size.
        telemetry: make squared norms of gradient, update and parameter in the same pass.
        hyper: values of the chain's hyperparameters by name, as in ``param_groups``.

    Raises:
        TypeError: unknown options, complex parameters.
        ValueError: a value out of range, a ``where=`` pattern that matches no parameter.

    Example:
        >>> from brickyard.optim import Optimizer, chain, decay, scale_by_adam
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = Optimizer(model, chain(scale_by_adam(), decay(0.1, where="matrices")),
        ...                       lr=1e-3)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self, params: Any, chain: Chain | None = None, lr: Any = None, *, maximize: bool = False,
        backend: str = "auto", master_weights: bool = False,
        state_dtype: torch.dtype | None = None, telemetry: bool = False, **hyper: Any,
    ) -> None:  # fmt: skip
        if backend not in backends.NAMES:
            raise ValueError(f"backend must be one of {backends.NAMES}; got {backend!r}")
        for name, value in (("master_weights", master_weights), ("telemetry", telemetry)):
            check_option(name, False, value)
        if state_dtype is not None and not getattr(state_dtype, "is_floating_point", False):
            raise TypeError(f"state_dtype must be a floating torch.dtype such as torch.float32, "
                            f"or None; got {state_dtype!r}")  # fmt: skip
        self._chain, self._own = chain, {"lr", "maximize"}
        self.backend, self.master_weights = backend, master_weights
        self.state_dtype, self.telemetry = state_dtype, telemetry
        self.steps = 0
        self.skipped = 0
        self.last_skipped = False
        self._engine = Engine(self)
        defaults = self._defaults(chain, lr, hyper)
        defaults["maximize"] = maximize
        self._check_values(defaults)
        if chain is None:
            self._check_names(defaults)
        super().__init__(_parameters(params), defaults)

    def _defaults(self, given: Chain | None, lr: Any, hyper: dict[str, Any]) -> dict[str, Any]:
        for name in _TORCHS:
            if name in hyper and hyper.pop(name):
                raise TypeError(f"{name}=True chooses one of torch's implementations; here it is "
                                f"backend=, one of {backends.NAMES}")  # fmt: skip
        if given is None:
            self._own |= set(hyper)
            return {"lr": lr, **hyper}
        if not isinstance(given, Chain):
            given = self._chain = chain(given)
        found = Setup(given, sorted(self._own), {}).binding.added
        unknown = [name for name in hyper if name not in found]
        if unknown:
            raise TypeError(f"no piece of the chain has a hyperparameter {unknown[0]!r}"
                            f"{near(unknown[0], found)}")  # fmt: skip
        return {"lr": _rate(given.lr, lr), **found, **hyper}

    def pieces(self, o: Any) -> Chain:
        """Return the chain for a parameter group; named optimizers override this.

        Args:
            o: the group's options by attribute. What is read here decides about the structure; all
                else is bound by name and read every step.

        Raises:
            TypeError: neither a chain was given nor this method overridden.
        """
        if self._chain is None:
            raise TypeError(f"{type(self).__name__} needs a chain: Optimizer(model, chain(...))")
        return self._chain

    #: Options of groups in which a subclass keeps its own notes.
    notes: ClassVar[tuple[str, ...]] = ()

    def check_options(self, o: Any) -> None:
        """Raise ValueError for options that contradict each other; subclasses override this.

        Args:
            o: a group's options by attribute. Ranges by name and kind are checked already.
        """

    def _check_values(self, values: Mapping[str, Any]) -> None:
        options = declared(type(self))
        for name, value in values.items():
            if name in options and name in self._own:
                check_option(name, options[name], value, self.steps)
        self.check_options(Names("the parameter group", values))

    def _check_names(self, defaults: Mapping[str, Any]) -> None:
        """Raise TypeError for an option without effect."""
        setup = self.make_setup(defaults)
        known = {*declared(type(self)), *self.notes, *setup.read,
                 *(key.partition(".")[0] for key in setup.binding.keys.values())}  # fmt: skip
        for name in defaults:
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no option {name!r}{near(name, known)}")

    def make_setup(self, group: Mapping[str, Any]) -> Setup:
        """Return a group's chain and where its hyperparameters are."""
        watched = _Watched(group)
        made = self.pieces(watched)
        return Setup(made, sorted(set(group) - {"params", "param_names"}), watched.__dict__["read"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group at any time; options that it does not name get the optimizer's defaults.

        Raises:
            TypeError: an option that the chain does not have; complex parameters.
            ValueError: a ``where=`` pattern that matches none of the optimizer's parameters.
        """
        group = dict(param_group)
        group["params"] = _parameters(group["params"])
        known = {"params", "param_names", "name", *self.defaults}
        for key in group:
            if key not in known and not key.startswith("initial_"):  # schedulers leave these
                raise TypeError(f"a parameter group has no option {key!r}{near(key, known)}")
        super().add_param_group(group)
        for p in self.param_groups[-1]["params"]:
            if p.is_complex():
                raise TypeError("complex parameters are not supported: optimize "
                                "torch.view_as_real(parameter) instead")  # fmt: skip
        try:
            self._check(self.param_groups[-1])
        except (ValueError, TypeError):
            self.param_groups.pop()
            raise
        self._engine.dirty = True

    def _check(self, added: dict[str, Any]) -> None:
        self._check_values(added)
        setup = self.make_setup(added)
        values = setup.binding.read(added, self.steps)
        for i, piece in enumerate(setup.chain.pieces):
            if piece.rule.check is not None:
                own = {name: values[setup.binding.keys[i, name]] for name in piece.hyper}
                piece.rule.check(**own, **piece.options)
            if isinstance(piece.where, str) and piece.where not in ("matrices", "vectors"):
                found = [matches(piece.where, name, p) for group in self.param_groups
                         for name, p in _named(group)]  # fmt: skip
                if not any(found):
                    names = [name for group in self.param_groups for name, _ in _named(group)]
                    raise ValueError(f"where={piece.where!r} of {piece.name} matches none of the "
                                     f"parameters: {', '.join(map(str, names[:8]))}")  # fmt: skip

    def flags(self, p: torch.Tensor, scaled: bool) -> Flags:
        """Return the variant of the chain that a parameter needs."""
        half = p.dtype in (torch.bfloat16, torch.float16)
        return Flags(scaled, self.master_weights and half, self.telemetry)

    def slot_dtype(self, slot: Slot, p: torch.Tensor) -> torch.dtype:
        """Return the storage type of a slot."""
        if slot.name == "master":
            return torch.float32
        if self.state_dtype is not None:
            return self.state_dtype
        return torch.float32 if self.master_weights else p.dtype

    def new_slot(self, slot: Slot, p: torch.Tensor) -> torch.Tensor:
        """Return a slot's first value for a parameter."""
        return backends.slot_like(slot, p, self.slot_dtype(slot, p))

    def slots_of(self, setup: Setup, name: str | None, p: torch.Tensor) -> list[Slot]:
        """Return everything that is kept for a parameter."""
        pieces = enumerate(setup.chain.pieces)
        active = [i for i, piece in pieces if matches(piece.where, name, p)]
        found = list(setup.chain.slots(active).values())
        return found + ([Slot("master", "param")] if self.flags(p, False).master else [])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: computes the loss and gradients again, and returns the loss.

        Raises:
            TypeError: sparse gradients.
            NonFiniteError: a piece that shall raise met a norm that is not finite.
        """
        return self._step(closure)

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and float(found_inf) != 0.0:
            self.last_skipped, self.skipped = True, self.skipped + 1
            return loss
        self.last_skipped = not self._engine.step(self._coefficients())
        self.skipped += self.last_skipped
        self.steps += not self.last_skipped
        return loss

    #: ``GradScaler`` hands its scale over instead of changing the gradients.
    _step_supports_amp_scaling = True

    def _coefficients(self) -> list[float] | None:
        """Return what each group's gradients are multiplied by first; None for 1 everywhere."""
        scale = getattr(self, "grad_scale", None)
        signs = [-1.0 if group["maximize"] else 1.0 for group in self.param_groups]
        if scale is None:
            return signs if -1.0 in signs else None
        unscale = 1.0 / float(scale)
        return [sign * unscale for sign in signs]

    def norms(self) -> dict[str, dict[str, float]]:
        """Return gradient, update and parameter norm of each tensor, from the last step.

        Raises:
            ValueError: the optimizer was made without ``telemetry=True``.
        """
        if not self.telemetry:
            raise ValueError("norms are only made with telemetry=True")
        names = {p: name or str(i) for i, (name, p) in enumerate(
            pair for group in self.param_groups for pair in _named(group))}  # fmt: skip
        found: dict[str, dict[str, float]] = {name: {} for name in names.values()}
        for bucket in self._engine.buckets:
            for kind, values in bucket.run.outputs().items():
                for p, value in zip(bucket.whole, values, strict=True):
                    found[names[p]][kind] = value**0.5
        return found

    def explain(self, kernel: bool = False) -> str:
        """Return what a step does: pieces, passes, bytes per parameter, backend.

        Args:
            kernel: add the generated C.
        """
        from brickyard.optim.explain import explain

        return explain(self, self._engine, kernel)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in torch's form; equal optimizers of torch can load it."""
        for hook in self._hooks("save before").values():
            hook(self)
        found = state.save(self)
        for hook in self._hooks("save after").values():
            changed = hook(self, found)
            found = found if changed is None else changed
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of an equal optimizer, ours or torch's; nothing is shared with it after.

        Raises:
            StateError: another chain or other parameters; the message holds the differences.
        """
        state_dict = dict(state_dict)
        for hook in self._hooks("load before").values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        state.load(self, state_dict)
        self._engine.dirty = True
        for hook in self._hooks("load after").values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        kept = {k: v for k, v in self.__dict__.items() if not k.startswith("_")}
        return {**kept, "_chain": self._chain, "_own": self._own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._engine = Engine(self)
        super().__setstate__(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimizer:
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made


Optimizer.step = light(Optimizer.step)


def _parameters(params: Any) -> Any:
    if isinstance(params, torch.nn.Module):
        return list(params.named_parameters())
    return params if isinstance(params, torch.Tensor | Mapping) else list(params)


def _named(group: Mapping[str, Any]) -> Iterable[tuple[str | None, torch.Tensor]]:
    names = group.get("param_names") or [None] * len(group["params"])
    return zip(names, group["params"], strict=True)


def _rate(own: Any, given: Any) -> Any:
    """Return the learning rate from the chain's and the optimizer's: a schedule is a factor."""
    if own is None and given is None:
        raise TypeError("a learning rate is missing: give lr= to the optimizer or to chain()")
    if own is None or given is None:
        return given if own is None else own
    if callable(own):
        return _Product(own, given)
    raise ValueError(f"two learning rates: the chain's {own!r} and lr={given!r}; give one")


class _Product:
    """Multiply a schedule by a base value."""

    def __init__(self, schedule: Callable[..., Any], base: Any) -> None:
        self.schedule, self.base = schedule, base

    def __call__(self, step: int) -> float:
        return number(self.schedule, step) * number(self.base, step)

    def __repr__(self) -> str:
        return f"{self.base!r} * {self.schedule!r}"
