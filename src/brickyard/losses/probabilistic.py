"""Losses between distributions: divergence, distillation, the evidence lower bound."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_choice,
    check_finite,
    check_floating,
    check_interval,
    check_modes,
    check_not_empty,
    check_number,
    check_same_shape,
    reduce,
    single,
)
from brickyard.losses._targets import check_classes, check_probabilities, refuse_softmax

__all__ = [
    "DistillationLoss", "ELBOLoss", "KLDivergence", "distillation_loss", "elbo_loss",
    "gaussian_kl", "kl_divergence",
]  # fmt: skip

Likelihood = Literal["bernoulli", "gaussian"]
_LIKELIHOODS = ("bernoulli", "gaussian")


def kl_divergence(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, temperature: float = 1.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return KL(target || softmax(input / temperature)); see :class:`KLDivergence`."""
    who = "kl_divergence"
    check_modes(who, reduction, validate)
    check_number(who, "temperature", temperature, 0.0, open_low=True)
    check_floating(who, "input", input)
    check_floating(who, "target", target)
    check_not_empty(who, input, reduction)
    axis = 1 if input.dim() > 1 else 0
    check_probabilities(who, input, target, axis, validate)
    if validate == "full":  # -inf is fine: it rules a class out
        check_finite(who, input=input.clamp_min(torch.finfo(input.dtype).min))
        refuse_softmax(who, input, axis)
    log_q = F.log_softmax(single(input) / temperature, axis)
    p = target.to(log_q.dtype)
    cross = torch.where(p > 0, p * log_q, 0)  # 0 * -inf where a class is ruled out on both sides
    return reduce(who, (torch.xlogy(p, p) - cross).sum(axis), reduction, sample_weight)


def distillation_loss(
    student: Tensor, teacher: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    temperature: float = 4.0, alpha: float = 0.5, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the loss of a student under teacher and labels; see :class:`DistillationLoss`."""
    who = "distillation_loss"
    check_modes(who, reduction, validate)
    check_number(who, "temperature", temperature, 0.0, open_low=True)
    check_number(who, "alpha", alpha, 0.0, 1.0)
    check_floating(who, "student", student)
    check_floating(who, "teacher", teacher)
    check_same_shape(who, student, teacher, "student and teacher")
    check_not_empty(who, student, reduction)
    axis = 1 if student.dim() > 1 else 0
    target = check_classes(who, student, target, axis, -1 - student.shape[axis], validate).indices
    if validate == "full":
        check_finite(who, student=student, teacher=teacher)
        refuse_softmax(who, student, axis)
        refuse_softmax(who, teacher, axis)
    student, teacher = single(student), single(teacher).detach()
    log_p = F.log_softmax(teacher.to(student.dtype) / temperature, axis)
    log_q = F.log_softmax(student / temperature, axis)
    soft = (log_p.exp() * (log_p - log_q)).sum(axis)
    hard = F.cross_entropy(student, target, reduction="none")
    loss = alpha * temperature**2 * soft + (1 - alpha) * hard
    return reduce(who, loss, reduction, sample_weight)


def gaussian_kl(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mu, exp(log_var)) || N(0, 1)) per sample, in nats.

    Computed with ``expm1``: a posterior close to the prior keeps more of its small divergence.

    Math:
        KL_i = 0.5 * sum_j (mu_j^2 + exp(log_var_j) - 1 - log_var_j)

    Args:
        mu: means, ``(N, *)``.
        log_var: logarithms of the variances, in the shape of ``mu``.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
        tensor([0.5000])

    Reference:
        Kingma & Welling 2014, Auto-Encoding Variational Bayes, appendix B.
    """
    check_floating("gaussian_kl", "mu", mu)
    check_same_shape("gaussian_kl", mu, log_var, "mu and log_var")
    mu, log_var = single(mu), single(log_var)
    terms = mu.square() + (torch.expm1(log_var) - log_var)
    return 0.5 * terms.flatten(1).sum(1) if terms.dim() > 1 else 0.5 * terms.sum()


def elbo_loss(
    recon: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, sample_weight: Tensor | None = None,
    likelihood: str = "bernoulli", beta: float = 1.0, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the negative evidence lower bound per sample, in nats; see :class:`ELBOLoss`."""
    who = "elbo_loss"
    check_modes(who, reduction, validate)
    check_choice(who, "likelihood", likelihood, _LIKELIHOODS)
    check_number(who, "beta", beta, 0.0)
    check_floating(who, "recon", recon)
    check_floating(who, "x", x)
    check_same_shape(who, recon, x, "recon and x")
    check_not_empty(who, recon, reduction)
    check_same_shape(who, mu, log_var, "mu and log_var")
    if recon.dim() < 2 or mu.dim() < 2 or mu.shape[0] != recon.shape[0]:
        raise ValueError(
            f"{who}: every tensor needs the samples on axis 0 and at least one more axis; got "
            f"recon {tuple(recon.shape)} and mu {tuple(mu.shape)}"
        )
    full = validate == "full"
    if full:
        check_finite(who, recon=recon, x=x, mu=mu, log_var=log_var)
    recon = single(recon)
    x = x.to(recon.dtype)
    if likelihood == "bernoulli":
        why = "A Bernoulli likelihood needs data in [0, 1]; scale it, or take 'gaussian'."
        check_interval(who, "x", x, 0, 1, why, full)
        miss = F.binary_cross_entropy_with_logits(recon, x, reduction="none")
    else:
        miss = 0.5 * (recon - x).square() + 0.5 * math.log(2 * math.pi)
    loss = miss.flatten(1).sum(1) + beta * gaussian_kl(mu, log_var)
    return reduce(who, loss, reduction, sample_weight)


@brick(
    "loss", "kl_divergence", public="brickyard.losses", output="logits",
    target="probabilities",
    summary="Extra nats paid for coding the target distribution with the predicted one.",
    use_when="The target is a distribution: soft labels, annotators' votes, a teacher.",
    avoid_when="The target is one class: cross_entropy has the same gradient and costs less.",
    best_for="Soft-label training, matching policies or attention to given distributions.",
    paper="Kullback & Leibler 1951, On Information and Sufficiency",
    tune_first="temperature: above 1 it softens the prediction before it is compared",
    cost="One log-softmax over the classes.",
    pairs_with=("cross_entropy", "distillation"),
)  # fmt: skip
class KLDivergence(Loss):
    """Measure the divergence of predicted logits from target probabilities.

    Takes logits and probabilities in the order of every other loss here; torch's ``KLDivLoss``
    takes log-probabilities, and its ``"mean"`` divides by the number of classes too.
    0 log 0 is 0, and a class that both sides rule out (logit -inf) costs nothing. Only the
    prediction is divided by ``temperature``; no factor temperature^2 is applied.

    Math:
        q = softmax(x_i / temperature);  l_i = sum_c p_c * log(p_c / q_c)

    Args:
        temperature: divides the logits; above 0.
        reduction: ``"mean"`` over samples and positions (weighted when ``sample_weight`` is
            given), ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that targets lie in [0, 1];
            ``"full"`` also that they sum to one and that logits are no probabilities.

    Shape:
        input and target ``(C,)`` or ``(N, C, *)``; ``sample_weight`` ``(N,)`` or ``(N, *)``.

    Raises:
        ValueError: shapes differ, a probability is outside [0, 1], ``temperature`` is not above
            0, there is one class only, the batch is empty.
        TypeError: input or target is not floating point.

    Example:
        >>> import torch
        >>> KLDivergence()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # ln 2
        tensor(0.6931)

    Reference:
        Kullback & Leibler 1951, On Information and Sufficiency, section 2.
    """

    def __init__(
        self, temperature: float = 1.0, reduction: Reduction = "mean", validate: Validate = "cheap"
    ):
        super().__init__(reduction, validate)
        check_number("KLDivergence", "temperature", temperature, 0.0, open_low=True)
        self.temperature = temperature

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the divergence of ``input`` (logits) from ``target`` (probabilities)."""
        return kl_divergence(
            input, target, sample_weight, self.temperature, self.reduction, self.validate
        )


@brick(
    "loss", "distillation", public="brickyard.losses", output="logits", target="class indices",
    summary="Match a teacher's softened distribution and the labels at once.",
    use_when="A larger trained model exists and its logits on the training data are at hand.",
    avoid_when="The teacher is no better than the student would be, or sees other classes.",
    best_for="Compressing classifiers and ensembles.",
    paper="Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2",
    tune_first="temperature (2 to 8), then alpha",
    cost="Two log-softmaxes more than cross-entropy, and the teacher's forward pass.",
    pairs_with=("cross_entropy", "adamw"),
)  # fmt: skip
class DistillationLoss(Loss):
    """Teach a student with a teacher's logits and the true labels.

    The factor temperature^2 keeps the size of the soft gradient independent of the temperature,
    as the paper advises. The teacher gets no gradient.

    Math:
        p = softmax(teacher / T), q = softmax(student / T)
        l_i = alpha * T^2 * KL(p || q) + (1 - alpha) * CE(student, y)

    Args:
        temperature: softens both distributions; above 0.
        alpha: weight of the teacher; 0 leaves cross-entropy, 1 ignores the labels.
        reduction: ``"mean"`` over samples and positions (weighted when ``sample_weight`` is
            given), ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite logits and rows that are probabilities already.

    Shape:
        student and teacher ``(N, C, *)``; target integers ``(N, *)``; ``sample_weight`` ``(N,)``
        or ``(N, *)``.

    Raises:
        ValueError: shapes do not match, an index is outside ``[0, C)``, an option is out of
            range, the batch is empty.
        TypeError: logits are not floating point, the target is not integer.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> DistillationLoss(alpha=1.0)(logits, logits, torch.tensor([0]))
        tensor(0.)

    Reference:
        Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, section 2.
    """

    def __init__(
        self, temperature: float = 4.0, alpha: float = 0.5, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("DistillationLoss", "temperature", temperature, 0.0, open_low=True)
        check_number("DistillationLoss", "alpha", alpha, 0.0, 1.0)
        self.temperature, self.alpha = temperature, alpha

    def forward(
        self, student: Tensor, teacher: Tensor, target: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the loss of ``student`` under ``teacher`` and ``target``."""
        return distillation_loss(
            student, teacher, target, sample_weight, self.temperature, self.alpha, self.reduction,
            self.validate,
        )  # fmt: skip


@brick(
    "loss", "elbo", public="brickyard.losses", output="other", target="values",
    summary="Negative evidence lower bound: misfit of the reconstruction plus KL to the prior.",
    use_when="Training a variational autoencoder with a Gaussian posterior and a standard prior.",
    avoid_when="There is no latent distribution, or the prior is not a standard normal.",
    best_for="VAEs and beta-VAEs.",
    paper="Kingma & Welling 2014, Auto-Encoding Variational Bayes, eq. 10",
    tune_first="beta (warm it up from 0 when the posterior collapses), then the likelihood",
    cost="One pass over the data, one over the latents.",
    pairs_with=("adam", "bce", "mse"),
)  # fmt: skip
class ELBOLoss(Loss):
    """Measure the negative evidence lower bound, per sample and in nats.

    Sums over pixels and latents, as the bound does: a mean over pixels would weigh the KL term
    by their number. ``recon`` are logits for ``"bernoulli"`` and means of unit variance for
    ``"gaussian"``; the constant of the Gaussian is included, so values compare across models.

    Math:
        bernoulli: miss_i = sum_j BCE(recon_ij, x_ij)
        gaussian:  miss_i = sum_j (0.5*(recon_ij - x_ij)^2 + 0.5*log(2*pi))
        l_i = miss_i + beta * 0.5 * sum_k (mu_ik^2 + exp(log_var_ik) - 1 - log_var_ik)

    Args:
        likelihood: ``"bernoulli"`` (data in [0, 1]) or ``"gaussian"``.
        beta: weight of the KL term; 1 is the bound, above 1 beta-VAE; at least 0.
        reduction: ``"mean"`` over samples (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that Bernoulli data lie in
            [0, 1]; ``"full"`` also refuses non-finite values.

    Shape:
        recon and x ``(N, *)``; mu and log_var ``(N, *)``; ``sample_weight`` ``(N,)``.

    Raises:
        ValueError: shapes do not match, Bernoulli data outside [0, 1], an option is out of range,
            the batch is empty.
        TypeError: recon or x is not floating point.

    Example:
        >>> import torch
        >>> zeros = torch.zeros(1, 2)
        >>> ELBOLoss("gaussian")(zeros, zeros, torch.ones(1, 1), torch.zeros(1, 1))
        tensor(2.3379)

    Reference:
        Kingma & Welling 2014, Auto-Encoding Variational Bayes, eq. 10 and appendices B, C;
        Higgins et al. 2017, beta-VAE, eq. 4.
    """

    def __init__(
        self, likelihood: Likelihood = "bernoulli", beta: float = 1.0,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_choice("ELBOLoss", "likelihood", likelihood, _LIKELIHOODS)
        check_number("ELBOLoss", "beta", beta, 0.0)
        self.likelihood, self.beta = likelihood, beta

    def forward(
        self, recon: Tensor, x: Tensor, mu: Tensor, log_var: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the negative bound for reconstructions ``recon`` of ``x``."""
        return elbo_loss(
            recon, x, mu, log_var, sample_weight, self.likelihood, self.beta, self.reduction,
            self.validate,
        )  # fmt: skip
