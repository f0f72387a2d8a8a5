"""Activations: torch's own, each with its card."""

from __future__ import annotations

from torch.nn import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    Mish,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)

from brickyard.catalog import brick

__all__ = [
    "ELU", "GELU", "SELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "Mish", "PReLU",
    "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
]  # fmt: skip

brick(
    "activation",
    "relu",
    public="brickyard.nn",
    formula="max(0, x)",
    summary="Passes positive values and zeroes the rest: the plain default of hidden layers.",
    use_when="You need a hidden activation and nothing speaks for another; with kaiming weights.",
    avoid_when="Many units stay at zero for every input (dead units; lower the rate first, then "
    "take leaky_relu), or the function must be smooth, as for penalties on gradients.",
    best_for="Convolutional networks and multilayer perceptrons, above all with batch_norm.",
    paper="Nair & Hinton 2010, Rectified Linear Units Improve Restricted Boltzmann Machines, "
    "ICML; Glorot, Bordes & Bengio 2011, Deep Sparse Rectifier Neural Networks, AISTATS",
    tune_first="Nothing in it; the initializer (kaiming) and the learning rate decide.",
    cost="One comparison a value; backward keeps the output, which inplace=True shares.",
    pairs_with=("kaiming_normal_", "kaiming_uniform_", "batch_norm"),
)(ReLU)

brick(
    "activation",
    "sigmoid",
    public="brickyard.nn",
    aliases=("logistic",),
    formula="1 / (1 + exp(-x))",
    summary="Squashes a value into (0, 1): a gate, or the probability of one yes-or-no answer.",
    use_when="A value gates another (LSTM, squeeze-and-excitation, attention gates), or "
    "predictions are turned into probabilities after training.",
    avoid_when="In hidden layers of deep networks: its slope is 1/4 at most, so gradients fade "
    "layer by layer. Before a loss on logits: bce applies it inside, more precisely.",
    best_for="Gates, and reading probabilities off binary or multi-label logits.",
    paper="Glorot & Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural "
    "Networks, AISTATS (why it saturates in hidden layers)",
    tune_first="Start the layer before it with xavier weights; biases of gates set how open they "
    "are.",
    cost="One exponential a value; backward needs the output alone.",
    pairs_with=("xavier_uniform_", "xavier_normal_"),
)(Sigmoid)

brick(
    "activation",
    "tanh",
    public="brickyard.nn",
    formula="(exp(x) - exp(-x)) / (exp(x) + exp(-x))",
    summary="Squashes a value into (-1, 1), centred on zero.",
    use_when="A state must stay bounded (recurrent cells, control outputs), or a shallow network "
    "fits a smooth function.",
    avoid_when="In deep plain stacks: values beyond about 3 have almost no gradient.",
    best_for="Recurrent networks, bounded actions, image generators with data in [-1, 1].",
    paper="LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.4",
    tune_first="The weights' spread: xavier, with gain 1.1 in deep plain stacks (measured over 30 "
    "layers: 1 lets activations fade to a fifth, 5/3 makes gradients grow fourteenfold).",
    cost="About one exponential a value; backward needs the output alone.",
    pairs_with=("xavier_normal_", "xavier_uniform_", "orthogonal_"),
)(Tanh)

brick(
    "activation",
    "softmax",
    public="brickyard.nn",
    formula="exp(x_i) / sum_j exp(x_j) along dim",
    summary="Turns scores along one axis into positive weights that sum to one.",
    use_when="Weights over alternatives are needed inside a network (attention, mixtures), or "
    "probabilities are read off after training. Always name the axis: dim=-1 for classes last.",
    avoid_when="Before cross_entropy, which takes logits and applies it inside: doing it twice "
    "flattens the gradients. Answers that do not exclude each other want sigmoid.",
    best_for="Attention weights and class probabilities.",
    paper="Bridle 1990, Probabilistic Interpretation of Feedforward Classification Network "
    "Outputs, in Neurocomputing, NATO ASI Series 68",
    tune_first="The axis; then the scale of the scores (a temperature divides them).",
    cost="One exponential a value and two reductions along the axis; backward needs the output.",
)(Softmax)

brick(
    "activation",
    "leaky_relu",
    public="brickyard.nn",
    aliases=("lrelu",),
    formula="x if x > 0, else negative_slope * x",
    summary="ReLU with a small slope below zero, so that no unit loses its gradient for good.",
    use_when="ReLU units die, or gradients must flow through a network's negative side too.",
    avoid_when="Sparse activations are wanted (exact zeros), or smoothness is.",
    best_for="Discriminators and generators of GANs (slope 0.2 is usual there); small networks "
    "where ReLU dies.",
    paper="Maas, Hannun & Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic "
    "Models, ICML workshop on deep learning for audio, speech and language",
    tune_first="negative_slope, from 0.01 to 0.2; give the same number to kaiming's a.",
    cost="As ReLU, with one multiplication; backward keeps the input, inplace=True the output.",
    pairs_with=("kaiming_normal_", "kaiming_uniform_"),
)(LeakyReLU)

brick(
    "activation",
    "prelu",
    public="brickyard.nn",
    formula="x if x > 0, else a * x with learned a",
    summary="Leaky ReLU whose slope below zero is learned, one for all channels or one for each.",
    use_when="There is data enough to learn the slope and leaky_relu already helped.",
    avoid_when="Weight decay reaches the slope: it pulls towards plain ReLU. Keep it out of decay "
    "(param_groups leaves vectors out by default). The channel axis is the second one.",
    best_for="Convolutional networks of the plain VGG kind, face recognition, super-resolution.",
    paper="He et al. 2015, Delving Deep into Rectifiers, arXiv:1502.01852, section 2.1 (no decay "
    "on the slopes)",
    tune_first="num_parameters: 1, or the number of channels.",
    cost="1 or C parameters; backward keeps the input and reduces a gradient for the slope.",
    pairs_with=("kaiming_normal_", "kaiming_uniform_"),
)(PReLU)

brick(
    "activation",
    "elu",
    public="brickyard.nn",
    formula="x if x > 0, else alpha * (exp(x) - 1)",
    summary="Linear above zero, saturating at -alpha below, which moves mean activations to zero.",
    use_when="A network without normalization learns slowly with ReLU.",
    avoid_when="Normalization already centres activations: little is left to gain for the "
    "exponential.",
    best_for="Plain dense or convolutional networks of medium depth without batch_norm.",
    paper="Clevert, Unterthiner & Hochreiter 2016, Fast and Accurate Deep Network Learning by "
    "Exponential Linear Units, arXiv:1511.07289",
    tune_first="alpha stays 1: other values put a kink at zero.",
    cost="One exponential a negative value; backward keeps the input.",
    pairs_with=("kaiming_normal_",),
)(ELU)

brick(
    "activation",
    "selu",
    public="brickyard.nn",
    formula="1.0507 * (x if x > 0, else 1.6733 * (exp(x) - 1))",
    summary="ELU with constants that pull activations towards mean 0 and variance 1 by themselves.",
    use_when="A deep plain dense network on standardized inputs is to train without "
    "normalization, with LeCun weights (variance 1/fan_in) and alpha_dropout: all three or none.",
    avoid_when="With kaiming weights (variance twice what it needs), plain dropout (breaks mean "
    "and variance), skip connections or a normalization layer: the fixed point no longer holds.",
    best_for="Tabular data with deep fully connected networks.",
    paper="Klambauer et al. 2017, Self-Normalizing Neural Networks, arXiv:1706.02515",
    tune_first="The weights: lecun_normal_, and inputs of mean 0 and variance 1.",
    cost="One exponential a negative value; backward keeps the input.",
    pairs_with=("lecun_normal_", "alpha_dropout"),
)(SELU)

brick(
    "activation",
    "silu",
    public="brickyard.nn",
    aliases=("swish",),
    formula="x * sigmoid(x)",
    summary="The input gated by its own sigmoid: smooth, with a dip to -0.28 below zero.",
    use_when="A smooth activation is wanted in a deep network: vision models of the EfficientNet "
    "family, diffusion networks, physics-informed networks.",
    avoid_when="The target hardware has no fast exponential (take hard_swish), or ReLU serves: "
    "gains are a fraction of a percent and depend on the rest of the recipe.",
    best_for="EfficientNet, YOLO and diffusion backbones; the gate of swiglu.",
    paper="Elfwing, Uchibe & Doya 2018, arXiv:1702.03118; Ramachandran, Zoph & Le 2017, Searching "
    "for Activation Functions, arXiv:1710.05941 (Swish; beta = 1 here)",
    tune_first="Nothing in it; the learning rate, when it replaces ReLU.",
    cost="One exponential a value; backward keeps the input.",
    pairs_with=("kaiming_normal_", "batch_norm"),
)(SiLU)

brick(
    "activation",
    "mish",
    public="brickyard.nn",
    formula="x * tanh(softplus(x))",
    summary="A smooth relative of SiLU, with a dip to -0.31 below zero.",
    use_when="A recipe that you reproduce uses it, or SiLU is in place and you can afford to "
    "compare.",
    avoid_when="Speed matters: it costs more than SiLU and independent comparisons find no steady "
    "gain over it.",
    best_for="Detectors of the YOLOv4 line.",
    paper="Misra 2019, Mish: A Self Regularized Non-Monotonic Activation Function, "
    "arXiv:1908.08681",
    tune_first="Nothing in it.",
    cost="Two exponentials and a logarithm a value; backward keeps the input.",
    pairs_with=("kaiming_normal_", "batch_norm"),
)(Mish)

brick(
    "activation",
    "gelu",
    public="brickyard.nn",
    formula="x * Phi(x), Phi the standard normal distribution function; approximate='tanh': 0.5 x "
    "(1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))",
    summary="Weighs the input by the chance that a standard normal lies below it: transformers' "
    "default.",
    use_when="You build or load a transformer, or a ConvNeXt-like network.",
    avoid_when="Loaded weights were trained with the other form: GPT-2, the first BERT code and "
    "jax.nn.gelu use approximate='tanh', torch's default is exact; the two differ by up to 5e-4.",
    best_for="Feed-forward blocks of BERT, GPT-2, ViT and MLP-Mixer.",
    paper="Hendrycks & Gimpel 2016, Gaussian Error Linear Units, arXiv:1606.08415",
    tune_first="approximate, to what the weights were trained with; nothing otherwise.",
    cost="One error function or tanh a value; backward keeps the input.",
    pairs_with=("layer_norm", "trunc_normal_"),
)(GELU)

brick(
    "activation",
    "softplus",
    public="brickyard.nn",
    formula="log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold",
    summary="A smooth ramp that is always positive: for scales, rates and variances.",
    use_when="An output must be positive: standard deviations, Poisson rates, concentrations.",
    avoid_when="As a hidden activation: ReLU is cheaper and trains as well; its output is never "
    "centred. Below about -17 in fp32 it is 4e-8 or less: add a small floor before dividing by it.",
    best_for="Heads that predict a scale or rate.",
    paper="Dugas et al. 2001, Incorporating Second-Order Functional Knowledge for Better Option "
    "Pricing, NeurIPS 13",
    tune_first="beta: larger is closer to ReLU.",
    cost="One exponential and one logarithm a value; backward keeps the input.",
)(Softplus)

brick(
    "activation",
    "hard_sigmoid",
    public="brickyard.nn",
    aliases=("hardsigmoid",),
    formula="min(max(x + 3, 0), 6) / 6",
    summary="Sigmoid out of three straight pieces, for hardware where exponentials are dear.",
    use_when="A gate must run on a phone, in integers or on a microcontroller.",
    avoid_when="On a desktop or accelerator, where sigmoid is fast; outside (-3, 3) the gradient "
    "is exactly zero. Older Keras has another slope (0.2 x + 0.5): loaded gates would shift.",
    best_for="Squeeze-and-excitation gates of mobile networks.",
    paper="Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244, section 5.2; the name "
    "from Courbariaux, Bengio & David 2015, arXiv:1511.00363, with slope 1/2",
    tune_first="Nothing in it.",
    cost="A clamp and a multiplication a value; backward keeps the input.",
)(Hardsigmoid)

brick(
    "activation",
    "hard_tanh",
    public="brickyard.nn",
    aliases=("hardtanh",),
    formula="min(max(x, min_val), max_val)",
    summary="Clips values to a range: a tanh out of three straight pieces.",
    use_when="Values must stay in a range and quantize well; ReLU6 is min_val=0, max_val=6.",
    avoid_when="Units sit outside the range at the start: their gradient is exactly zero.",
    best_for="Quantized and binarized networks, where it also bounds the straight-through "
    "gradient.",
    paper="Collobert 2004, Large Scale Machine Learning, PhD thesis, Universite de Paris VI; "
    "Hubara et al. 2016, Binarized Neural Networks, arXiv:1602.02830, section 1.3",
    tune_first="min_val and max_val, to the range of the number format.",
    cost="A clamp a value; backward keeps the input.",
)(Hardtanh)

brick(
    "activation",
    "hard_swish",
    public="brickyard.nn",
    aliases=("hardswish",),
    formula="x * min(max(x + 3, 0), 6) / 6",
    summary="SiLU with its sigmoid made of straight pieces: MobileNetV3's activation.",
    use_when="A network with SiLU is to run on phones or in integers.",
    avoid_when="On accelerators: silu is as fast. In the first, large layers of mobile networks "
    "the paper keeps ReLU, since the gain comes from the deeper half.",
    best_for="MobileNetV3 and other mobile or quantized networks.",
    paper="Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244, section 5.2",
    tune_first="Where it stands: only in the deeper half of the network.",
    cost="A clamp and two multiplications a value; backward keeps the input.",
    pairs_with=("kaiming_normal_", "batch_norm"),
)(Hardswish)
