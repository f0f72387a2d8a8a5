"""Normalization: torch's own, each with its card."""

from __future__ import annotations

from torch.nn import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from brickyard.catalog import brick

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "RMSNorm", "spectral_norm", "weight_norm",
]  # fmt: skip

brick(
    "normalization",
    "batch_norm",
    public="brickyard.nn",
    aliases=("batchnorm", "batchnorm2d", "bn"),
    formula="gamma * (x - mean) / sqrt(var + eps) + beta; training: mean and var of each channel "
    "over the batch and all positions; evaluation: their running averages",
    shares="one mean and variance a channel, over batch and positions",
    summary="Standardizes each channel over the batch; permits high learning rates, and its noise "
    "regularizes.",
    use_when="A convolutional network trains with 16 or more samples a device.",
    avoid_when="Fewer than about 8 samples a device (statistics too noisy: take group_norm); "
    "samples of a batch depend on each other, or one leaks into another (contrastive learning, "
    "per-sample gradients); training and test differ in distribution.",
    best_for="Image classifiers trained from scratch. BatchNorm1d, BatchNorm2d, BatchNorm3d by "
    "the number of spatial axes (reference models choose the right one).",
    paper="Ioffe & Szegedy 2015, arXiv:1502.03167; small batches: Wu & He 2018, arXiv:1803.08494, "
    "figure 1; regularization: Luo et al. 2019, arXiv:1809.00846",
    tune_first="The batch size; then momentum, which is the weight of the NEW batch (0.1), one "
    "minus what Keras calls momentum: 0.01 to 0.05 for small or noisy batches.",
    cost="2 parameters and 2 running values a channel; two passes over the activations. A bias "
    "before it has no effect: leave it out, and keep gamma and beta out of weight decay.",
    pairs_with=("relu", "kaiming_normal_"),
)(BatchNorm2d)

brick(
    "normalization",
    "layer_norm",
    public="brickyard.nn",
    aliases=("layernorm", "ln"),
    formula="gamma * (x - mean) / sqrt(var + eps) + beta, mean and var of each sample (or token) "
    "over the last axes",
    shares="one mean and variance a sample or token, over its features",
    summary="Standardizes each sample or token by itself, the same in training and evaluation.",
    use_when="Transformers, recurrent networks, and dense networks with small or varying batches.",
    avoid_when="Plain convolutional classifiers with large batches, where batch_norm is usually "
    "more accurate. It takes the LAST axes: images (N, C, H, W) want group_norm with one group.",
    best_for="Transformers; before each branch (pre-norm) deep ones train without a long warmup.",
    paper="Ba, Kiros & Hinton 2016, Layer Normalization, arXiv:1607.06450; its place: Xiong et "
    "al. 2020, arXiv:2002.04745",
    tune_first="Where it stands (before the branch), not its options.",
    cost="2 parameters a feature; one fused pass over the activations.",
    pairs_with=("gelu", "residual"),
)(LayerNorm)

brick(
    "normalization",
    "instance_norm",
    public="brickyard.nn",
    aliases=("instancenorm", "instancenorm2d"),
    formula="(x - mean) / sqrt(var + eps), mean and var of each sample and channel over its "
    "positions; times gamma plus beta only with affine=True",
    shares="one mean and variance a sample and channel, over its positions",
    summary="Standardizes each channel of each image by itself, which removes contrast and style.",
    use_when="An image's contrast or style should not matter: style transfer, image translation.",
    avoid_when="Classification where contrast tells classes apart; maps of one pixel (the result "
    "is zero, and torch refuses it); input without spatial axes, which torch reads as (C, L).",
    best_for="Style transfer and image-to-image generators.",
    paper="Ulyanov, Vedaldi & Lempitsky 2016, Instance Normalization, arXiv:1607.08022",
    tune_first="affine: off by default, unlike the other norms; most uses want it on.",
    cost="As batch_norm, without running values by default.",
)(InstanceNorm2d)

brick(
    "normalization",
    "group_norm",
    public="brickyard.nn",
    aliases=("groupnorm", "gn"),
    formula="gamma * (x - mean) / sqrt(var + eps) + beta, mean and var of each sample and group "
    "of channels over its positions",
    shares="one mean and variance a sample and group of channels, over positions",
    summary="Standardizes groups of channels within each sample: batch_norm's stand-in for small "
    "batches.",
    use_when="Images and fewer than about 8 samples a device: detection, segmentation, video, "
    "fine maps; or training and evaluation must compute the same.",
    avoid_when="Large batches on image classification, where batch_norm is slightly more accurate "
    "and can be folded into the convolution for inference.",
    best_for="Detection and segmentation heads; U-Nets of diffusion models.",
    paper="Wu & He 2018, Group Normalization, arXiv:1803.08494: with 2 images a device on "
    "ImageNet, 10.6 points less error than batch norm",
    tune_first="num_groups: 32, or 16 channels a group; 1 makes it a layer norm over (C, H, W).",
    cost="2 parameters a channel; two passes over the activations.",
    pairs_with=("relu", "silu"),
)(GroupNorm)

brick(
    "normalization",
    "rms_norm",
    public="brickyard.nn",
    aliases=("rmsnorm",),
    formula="gamma * x / sqrt(mean(x^2) + eps) over the last axes",
    shares="one root mean square a sample or token, over its features",
    summary="Layer norm without the mean and the shift: divides by the root mean square.",
    use_when="A transformer is trained from scratch and every pass over the activations counts.",
    avoid_when="You load weights trained with layer_norm: a mean is missing, not only a speed-up.",
    best_for="Language models of the LLaMA kind, and norms on queries and keys.",
    paper="Zhang & Sennrich 2019, Root Mean Square Layer Normalization, arXiv:1910.07467",
    tune_first="eps: None takes the number format's epsilon; models in use write 1e-5 or 1e-6.",
    cost="1 parameter a feature; one reduction instead of two.",
    pairs_with=("silu", "residual"),
)(RMSNorm)

brick(
    "normalization",
    "weight_norm",
    public="brickyard.nn",
    aliases=("weightnorm",),
    formula="w = g * v / ||v||, norm over all axes but dim",
    shares="one norm a row of the weight; activations are not touched",
    summary="Splits each row of a weight into a learned length and a direction.",
    use_when="Batch statistics are out of the question and layers should still learn length and "
    "direction apart: recurrent networks, reinforcement learning, audio generators.",
    avoid_when="batch_norm or layer_norm is possible: they also fix the activations' scale, "
    "weight_norm does not. Weight decay on g and v: only g changes the function.",
    best_for="Vocoders and other generators, small policy networks.",
    paper="Salimans & Kingma 2016, Weight Normalization, arXiv:1602.07868 (with an initial pass "
    "over a batch that sets g, which torch does not do)",
    tune_first="dim: 0 for one length an output unit, None for one for the whole weight.",
    cost="1 parameter an output unit; the weight is put together at each use.",
)(weight_norm)

brick(
    "normalization",
    "spectral_norm",
    public="brickyard.nn",
    aliases=("spectralnorm", "sn"),
    formula="w / sigma(w), sigma the largest singular value of w as a matrix, by power iteration",
    shares="one singular value a weight; activations are not touched",
    summary="Divides a weight by its largest singular value, which bounds how much it can amplify.",
    use_when="A discriminator or critic must be Lipschitz, or a layer must not amplify its input.",
    avoid_when="As a general normalization: it limits what the network can express. For "
    "convolutions the bound is that of the reshaped weight, not of the convolution itself.",
    best_for="GAN discriminators, with hinge loss.",
    paper="Miyato et al. 2018, Spectral Normalization for Generative Adversarial Networks, "
    "arXiv:1802.05957",
    tune_first="n_power_iterations: 1 is enough while weights change slowly.",
    cost="One matrix-vector product each way and a training step; 2 vectors of state a weight. "
    "Every forward pass in training mode moves the estimate.",
)(spectral_norm)
