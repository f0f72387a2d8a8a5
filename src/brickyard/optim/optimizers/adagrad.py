"""Adagrad and Adadelta."""

from __future__ import annotations

from typing import Any

from brickyard.catalog import brick
from brickyard.optim.chain import Chain, chain
from brickyard.optim.optimizer import Optimizer
from brickyard.optim.rules import l2
from brickyard.optim.rules_adaptive import scale_by_adadelta, scale_by_adagrad


@brick(
    "optimizer", "adagrad", public="brickyard.optim",
    summary="A rate per weight that falls with the root of all its squared gradients.",
    use_when="Features are sparse: weights that seldom get a gradient keep a large rate.",
    avoid_when="Training is long: the rate never recovers; take adam or rmsprop.",
    best_for="Word embeddings, recommenders and linear models on sparse features.",
    paper="Duchi, Hazan & Singer 2011 (JMLR 12), figure 1 with the diagonal matrix",
    tune_first="lr (1e-2 to 1e-1), then initial_accumulator_value",
    cost="4 bytes of state per parameter.",
    known_issue="The first step of every weight is lr, however small its gradient, unless "
    "initial_accumulator_value is above 0 (TensorFlow: 0.1, torch: 0). TensorFlow's old default "
    "has no eps; Keras puts eps inside the root, torch and the paper outside.",
    pairs_with=("adam",),
)  # fmt: skip
class Adagrad(Optimizer):
    """Divide the gradient by the root of the sum of all its squares.

    Conventions: torch's, which are the paper's diagonal form. ``eps`` outside the root;
    ``eps_inside=True`` is Keras's. Weight decay is coupled. Sparse gradients are not supported.

    Math:
        g = g + weight_decay*p;  G = G + g^2
        p = p - lr/(1 + (t-1)*lr_decay) * g / (sqrt(G) + eps), or g / sqrt(G + eps)

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: learning rate, or a schedule ``steps taken -> rate``.
        lr_decay: lets the rate fall as 1/t, beside what the sum does.
        weight_decay: coefficient of the coupled penalty.
        initial_accumulator_value: what the sum starts from; damps the first steps.
        eps: keeps the division finite.
        maximize: climb instead of descending.
        eps_inside: put eps under the root.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a negative value.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = Adagrad([w], lr=0.1)
        >>> w.grad = torch.tensor([5.0, 0.01])
        >>> optimizer.step()
        >>> [round(x, 4) for x in w.tolist()]
        [0.9, 0.9]

    Reference:
        Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization, JMLR 12, 2011.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False,
        eps_inside: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, eps=eps, eps_inside=eps_inside,
            maximize=maximize, **engine,
        )  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, if any, and the scaling."""
        return chain(l2() if o.weight_decay else None, scale_by_adagrad(eps_inside=o.eps_inside))


@brick(
    "optimizer", "adadelta", public="brickyard.optim",
    summary="Steps in units of the weights: past updates' size over past gradients' size.",
    use_when="No rate can be tuned, and slow progress at the start does no harm.",
    avoid_when="You can tune one number: adam with a tuned lr is faster.",
    best_for="Reproducing results of its time.",
    paper="Zeiler 2012 (arXiv:1212.5701), algorithm 1",
    tune_first="eps (it sets the size of the first steps), then rho",
    cost="8 bytes of state per parameter.",
    known_issue="The first steps have the size sqrt(eps), about 1e-3: it starts slowly. The paper "
    "has no lr (that is lr=1); Keras's default of 1e-3 makes it a thousand times slower.",
    pairs_with=("adam",),
)  # fmt: skip
class Adadelta(Optimizer):
    """Multiply the gradient by the size of past updates over the size of past gradients.

    Conventions: torch's, which are the paper's with a factor ``lr``. Weight decay is coupled.

    Math:
        g = g + weight_decay*p;  v = rho*v + (1-rho)*g^2
        d = sqrt(a + eps) / sqrt(v + eps) * g;  a = rho*a + (1-rho)*d^2
        p = p - lr*d

    Args:
        params: parameters, named parameters, groups of them, or a module.
        lr: factor of the update; 1 is the paper's method.
        rho: memory of both running squares, in [0, 1].
        eps: size of the first updates, squared; keeps the division finite.
        weight_decay: coefficient of the coupled penalty.
        maximize: climb instead of descending.
        engine: ``backend``, ``master_weights``, ``state_dtype``, ``telemetry`` of ``Optimizer``.

    Raises:
        ValueError: a negative value.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adadelta([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9968

    Reference:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, algorithm 1.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0.0, *, maximize: bool = False, **engine: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay,
                         maximize=maximize, **engine)  # fmt: skip

    def pieces(self, o: Any) -> Chain:
        """Return coupled decay, if any, and the scaling."""
        return chain(l2() if o.weight_decay else None, scale_by_adadelta())
