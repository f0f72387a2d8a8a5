"""The named optimizers (until the engine stands: PyTorch's own, carded)."""

from __future__ import annotations

from torch.optim import SGD, Adam, AdamW

from brickyard.catalog import brick

__all__ = ["SGD", "Adam", "AdamW"]

brick(
    "optimizer", "sgd", public="brickyard.optim",
    formula="v = momentum*v + g;  w = w - lr*v",
    summary="Stochastic gradient descent, optionally with heavy-ball or Nesterov momentum.",
    use_when="Convolutional networks on images with a tuned schedule, or as the plain baseline.",
    avoid_when="Gradients differ by orders of magnitude between layers, as in transformers.",
    best_for="CNN classifiers with momentum 0.9 and a decaying rate.",
    paper="Sutskever et al. 2013, On the importance of initialization and momentum",
    tune_first="lr (log scale, 1e-3 to 1), then momentum",
    cost="No state; 4 bytes per parameter with momentum.",
    known_issue="The best rate depends on the scale of the loss; it needs a schedule.",
)(SGD)  # fmt: skip

brick(
    "optimizer", "adam", public="brickyard.optim",
    formula="m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g^2;  w = w - lr * m_hat/(sqrt(v_hat)+eps)",
    summary="Momentum divided by a running root mean square of the gradient, bias-corrected.",
    use_when="You need progress without tuning the rate per layer.",
    avoid_when="You regularize by weight decay: the L2 term is rescaled away; take adamw.",
    best_for="Quick experiments, GANs, reinforcement learning.",
    paper="Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, algorithm 1",
    tune_first="lr (3e-4 is a common start)",
    cost="8 bytes of state per parameter.",
    known_issue="Weight decay is coupled to the adaptive scale; may fail to converge (Reddi 2018).",
)(Adam)  # fmt: skip

brick(
    "optimizer", "adamw", public="brickyard.optim",
    formula="w = w - lr*weight_decay*w;  w = w - lr * m_hat/(sqrt(v_hat)+eps)",
    summary="Adam with weight decay applied to the weights directly, not through the gradient.",
    use_when="Transformers, fine-tuning, most new models.",
    avoid_when="Optimizer memory is the limit: take lion or adafactor.",
    best_for="Transformers with warmup and cosine decay.",
    paper="Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2",
    tune_first="lr, then weight_decay (0.01 to 0.1)",
    cost="8 bytes of state per parameter.",
    known_issue="The decay is multiplied by lr: changing the rate changes the regularization.",
)(AdamW)  # fmt: skip
