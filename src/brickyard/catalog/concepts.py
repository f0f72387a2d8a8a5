"""Say what practitioners mean: phrases of a query, and the words that cards use for the matter.

One entry a matter: phrases that people type (left), words to look for as well (right). Words are
stemmed on both sides, so ``clip`` covers clipping and clipped. Keys of bricks are words too, but an
entry names them only where a card's own text would not say the matter plainly enough.
"""

from __future__ import annotations

CONCEPTS: tuple[tuple[str, str], ...] = (
    # What goes wrong
    (
        "class imbalance, imbalanced, unbalanced, imbalanced classes, rare class, rare classes, "
        "rare events, minority class, skewed classes, long tail, few positives, many negatives",
        "imbalance bce rare minority foreground background pos_weight weighted focal tversky dice",
    ),
    (
        "exploding gradients, gradient explosion, explode, gradient spikes, loss spikes, blow up, "
        "diverges, divergence, nan loss, nan, loss nan, loss goes nan, loss becomes nan, "
        "unstable training, instability",
        "explode spike unstable diverge nan clip norm bound nonfinite warmup",
    ),
    (
        "vanishing gradients, vanish, saturation, saturates, gradients die out",
        "vanish saturate depth deep residual skip scaled variance normalize xavier",
    ),
    (
        "validation loss, loss curve, loss stalls, validation stalls, stops improving",
        "validation plateau stall stop turns evaluations",
    ),
    ("dead relu, dying relu, dead units, dead neurons", "dead dying slope leaky"),
    (
        "overfitting, overfit, memorizes, generalization, generalize, generalization gap, "
        "small dataset, little data, small data, few samples",
        "overfit generalize regularize dropout augmentation decay early stop smoothing penalty",
    ),
    ("underfitting, underfit, stuck, plateau, stalls", "plateau stall stuck restart capacity"),
    (
        "outliers, outlier, robust regression, heavy tails, heavy tailed, noisy targets",
        "outlier robust absolute median huber heavy linear",
    ),
    ("label noise, noisy labels, wrong labels, mislabeled", "noise noisy mislabel smoothing mixup"),
    (
        "calibration, calibrated, overconfidence, overconfident, confidence",
        "calibrate overconfident confident smoothing temperature",
    ),
    ("forgetting, oscillation, oscillates, zig zag, jitter", "oscillate damp smooth average"),
    ("underflow, overflow, half precision, mixed precision", "fp16 bf16 underflow scale precision"),
    # Sizes and budgets
    (
        "small batch, small batches, tiny batch, batch size 1, batch size one, batch of one",
        "small batch group instance ghost per sample independent",
    ),
    (
        "large batch, large batches, big batch, huge batch, batch size 4096",
        "large batch trust ratio layerwise lamb lars warmup",
    ),
    (
        "memory, low memory, out of memory, oom, vram, memory efficient, limited memory",
        "memory bytes factored state chunk half lighter",
    ),
    ("large vocabulary, big vocabulary, vocabulary, vocab", "vocabulary logits head token chunk"),
    ("fast, speed, cheap, latency, mobile, edge device, quantized", "cheap fast mobile quantize"),
    (
        "few epochs, short budget, short training, fast convergence, super convergence",
        "short few budget cycle fast quick",
    ),
    (
        "unknown length, open ended, no fixed budget, train until convergence, continue training",
        "unknown length end plateau endless stable",
    ),
    ("very deep, deep network, depth, hundreds of layers", "deep depth residual layers variance"),
    # Models and fields
    (
        "transformer, transformers, attention, bert, gpt, vit, llm, language model, nlp",
        "transformer attention language token text",
    ),
    ("rnn, lstm, gru, recurrent, sequence model", "recurrent rnn lstm gru sequence hidden state"),
    ("cnn, convnet, convolution, resnet, vision, image", "convolution cnn image vision resnet"),
    ("gan, generator, discriminator, critic, generative", "gan generator discriminator critic"),
    ("vae, variational, autoencoder, latent", "variational elbo latent autoencoder kl"),
    (
        "reinforcement learning, reinforcement, rl, actor critic, agent, reward, dqn, ppo",
        "reinforcement policy advantage return reward actor critic ppo ppo_clip td dqn",
    ),
    ("q learning, bellman, bootstrapping", "q td temporal bootstrap value"),
    ("speech, asr, ocr, handwriting, alignment, audio", "speech audio alignment ctc spectrogram"),
    (
        "segmentation, mask, medical imaging, pixelwise, lesion",
        "segmentation mask overlap pixel dice medical",
    ),
    (
        "object detection, detection, bounding box, bounding boxes, bbox",
        "detection box boxes overlap dense",
    ),
    (
        "metric learning, embeddings, retrieval, face recognition, verification, siamese, "
        "similarity, similarity learning",
        "embedding retrieval verification similar distance pair anchor face",
    ),
    (
        "self supervised, unsupervised, representation learning, contrastive, pretraining",
        "contrastive info_nce info nce view views supervised representation negatives",
    ),
    (
        "knowledge distillation, distill, teacher, student, model compression, compress",
        "distill teacher student soft",
    ),
    ("style transfer, super resolution, image to image", "style perceptual texture instance"),
    ("fine tuning, finetune, finetuning, transfer learning, pretrained", "fine tuning pretrained"),
    ("tabular, table, tables, csv, columns", "table tabular column"),
    # Tasks
    ("multi label, multilabel, several labels", "multilabel independent binary logit"),
    ("binary classification, yes no, two classes", "binary logit"),
    ("multiclass, multi class, exclusive classes", "multiclass class softmax"),
    (
        "quantile, prediction interval, intervals, uncertainty, percentile, asymmetric",
        "quantile pinball interval asymmetric",
    ),
    ("margin, max margin, svm, support vector", "margin hinge svm"),
    ("positive output, positive outputs, variance output", "positive softplus variance"),
    ("adversarial examples, attack, robustness, adversarial training", "adversarial attack robust"),
    # Ideas
    ("sparse gradients, sparse features, rare words", "sparse rare embedding"),
    ("sparsity, sparse weights, feature selection, pruning, lasso", "sparse sparsity zero l1"),
    ("weight decay, l2, ridge, shrinkage", "decay l2 penalty decoupled"),
    ("second order, hessian, curvature, newton, quasi newton", "hessian curvature newton order"),
    ("gradient free, derivative free, black box, evolution", "evolution gradient free black box"),
    ("flat minima, weight averaging, average weights, polyak", "average flat swa ema wider"),
    ("ensemble, ensembling, committee", "ensemble average snapshot"),
    ("warm restarts, restarts, restart, cyclic, cyclical", "restart cycle cyclic periodic"),
    ("learning rate decay, annealing, anneal, lr schedule", "decay anneal schedule rate"),
    ("no batch norm, without batch norm, normalizer free", "free without norm adaptive scale"),
    ("augmentation, augment, more data", "augment augmentation label preserving"),
    ("gating, gate, gated", "gate gated sigmoid"),
    ("lookahead, slow weights, wrapper", "lookahead slow wrapper"),
    ("ema, exponential moving average", "ema average moving"),
    ("lipschitz, gradient penalty", "lipschitz penalty spectral"),
    # Short forms
    ("bn", "batch norm"),
    ("ln", "layer norm"),
    ("gn", "group norm"),
    ("lr", "learning rate"),
    ("ce, xent", "cross entropy"),
    ("kd", "distill distillation"),
    ("clr", "cyclic"),
    ("auc, roc", "auroc"),
    ("loss function, objective, criterion, cost function", "loss"),
    ("optimiser, solver", "optimizer"),
    ("scheduler, schedulers", "schedule"),
    ("nonlinearity, non linearity", "activation"),
)

#: Words of a query that say nothing about a brick.
STOP_WORDS = frozenset({
    "a", "after", "an", "and", "any", "are", "as", "at", "be", "best", "better", "by", "can",
    "deal", "do", "does", "for", "from", "get", "good", "handle", "has", "have", "how", "i",
    "if", "in", "into", "is", "it", "its", "me", "my", "need", "of", "on", "or", "problem",
    "problems", "should", "so", "some", "that", "the", "them", "this", "to", "too", "use",
    "used", "using", "very", "want", "what", "when", "where", "which", "while", "why", "with",
    "without", "works", "you", "your",
})  # fmt: skip

#: Words that are in many queries and many cards, and tell them apart but little.
GENERIC = frozenset({
    "function", "learn", "learning", "method", "model", "models", "network", "networks", "neural",
    "steps", "task", "tasks", "technique", "techniques", "train", "training",
})  # fmt: skip
