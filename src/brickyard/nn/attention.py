"""Transformers in small: one block, a language model and a vision transformer made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.errors import CatalogError
from brickyard.nn.build import Spec, drop, init_weights, make_layer, resolve
from brickyard.nn.gated import GeGLU, SwiGLU
from brickyard.nn.models import make_residual
from brickyard.nn.shapes import features_of, real, size_of, sizes_of, start_head

__all__ = ["GPT", "SelfAttention", "ViT", "transformer_block"]

#: Activations that are a whole feed-forward net.
_GATED = (SwiGLU, GeGLU)
#: Spread of embeddings and positions at the start, and of the weights unless told otherwise.
_STD = 0.02
#: Features of one head of a vision transformer.
HEAD = 16


class SelfAttention(nn.Module):
    """Let every position look at the others, in several heads at once.

    Math:
        softmax(Q K^T / sqrt(width / heads)) V,  Q, K, V = x W_q, x W_k, x W_v;  then W_o

    Args:
        width: features a position.
        heads: parts that the features are cut into.
        causal: let positions see themselves and earlier ones alone.
        out: the last linear layer; one of its own when None.

    Raises:
        ValueError: ``width`` is no multiple of ``heads``.

    Example:
        >>> SelfAttention(8, 2)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])

    Reference:
        Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 3.2.
    """

    def __init__(
        self, width: int, heads: int, causal: bool = False, out: nn.Module | None = None
    ) -> None:
        super().__init__()
        if width % size_of("heads", heads):
            raise ValueError(f"width must be a multiple of heads; got {width} and {heads}")
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width) if out is None else out

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, T, width)`` for ``(N, T, width)``."""
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(n, t, width))

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return f"heads={self.heads}, causal={self.causal}"


def transformer_block(
    width: int, heads: int, *, ratio: float = 4.0, causal: bool = False,
    activation: Spec = "gelu", normalization: Spec = "layer_norm", dropout: Spec = None,
    residual: Spec = "residual",
) -> nn.Sequential:  # fmt: skip
    """Return one block: attention, then a feed-forward net, each normalized before and added.

    Args:
        width: features a position.
        heads: parts that attention cuts them into.
        ratio: hidden width of the feed-forward net, in widths.
        causal: let positions see themselves and earlier ones alone.
        activation: key or mapping of an activation; ``swiglu`` and ``geglu`` are whole
            feed-forward nets and take its place.
        normalization: key or mapping of a normalization over features.
        dropout: key or mapping of a dropout, at the end of both branches.
        residual: key or mapping of a residual brick; None for no skip paths.

    Raises:
        CatalogError: an unknown key, or a layer that does not work on the last axis.
    """
    sizes, branch = features_of(width), residual is not None
    out, noise = drop(nn.Linear(width, width), dropout, branch=branch, **sizes)
    attention = SelfAttention(width, heads, causal, out)
    looks = nn.Sequential(*real(feature_norm(normalization, width), attention, noise))
    hidden = size_of("ratio * width", round(ratio * width))
    if activation is not None and resolve("activation", activation, "activation")[0] in _GATED:
        gate: Any = make_layer("activation", activation, dim=width)
        gate.w_out, noise = drop(gate.w_out, dropout, branch=branch, **sizes)
        layers = [gate]
    else:
        last, noise = drop(nn.Linear(hidden, width), dropout, branch=branch, **sizes)
        act = make_layer("activation", activation, dims=0, **features_of(hidden))
        layers = [nn.Linear(width, hidden), act, last]
    thinks = nn.Sequential(*real(feature_norm(normalization, width), *layers, noise))
    both = [make_residual(residual, part, dim=width) for part in (looks, thinks)]
    return nn.Sequential(*both)


def feature_norm(spec: Spec, width: int, path: str = "normalization") -> nn.Module:
    """Return a normalization of the last axis of ``(N, T, width)``.

    Args:
        spec: key or mapping; None for none.
        width: length of the last axis.
        path: where the choice stands, for messages.

    Raises:
        CatalogError: one that works on other axes, where positions would be mixed.
    """
    if spec is None:
        return nn.Identity()
    target, _ = resolve("normalization", spec, path)
    named = isinstance(spec, str) or "name" in spec
    if named and target not in (nn.LayerNorm, nn.RMSNorm):
        raise CatalogError(
            f"{path}: a transformer normalizes the features of each position, and "
            f"{spec if isinstance(spec, str) else spec['name']!r} works on other axes or on "
            "weights. Take layer_norm or rms_norm"
        )
    return make_layer("normalization", spec, path=path, **features_of(width))


def _start(model: nn.Module, init: Spec) -> None:
    """Fill the weights of a transformer, its embeddings and positions last."""
    if init is None:
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    else:
        init_weights(model, init)
    for layer in model.modules():
        if isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=_STD)


@brick(
    "model", "gpt", aliases=("transformer", "decoder_only"), public="brickyard.nn",
    summary="A small transformer over tokens that predicts every next one from those before it.",
    use_when="Language models over characters or pieces of words, from a laptop on.",
    avoid_when="Little text (below some hundred kilobytes it learns it by heart), or windows of "
    "thousands of tokens on a CPU: attention costs their square.",
    best_for="Character models, comparing optimizers and normalizations on text.",
    paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners (GPT-2)",
    tune_first="width and depth together, then dropout when it overfits.",
    cost="12 * width^2 weights a block; time also grows with the square of the window.",
    pairs_with=("layer_norm", "gelu", "adamw", "kjv"),
)  # fmt: skip
class GPT(nn.Module):
    """Predict the next token at every position with a stack of causal transformer blocks.

    Math:
        h = E[x] + P;   per block  h <- h + attention(norm(h)),  h <- h + ffn(norm(h));
        logits = W norm(h)

    Args:
        input_shape: ``(T,)``, the longest window.
        outputs: number of different tokens.
        width: features a position.
        depth: number of blocks.
        heads: parts that attention cuts the features into.
        activation: key or mapping of an activation; ``swiglu`` takes the place of a whole
            feed-forward net.
        normalization: key or mapping of a normalization of features.
        dropout: key or mapping of a dropout, at the end of every branch; None for none.
        residual: key or mapping of a residual brick; None for no skip paths.
        init: key or mapping of an initializer of single weights; None draws them from a truncated
            normal of deviation 0.02, as GPT-2 does.

    Raises:
        ValueError: a size below 1, or ``width`` that is no multiple of ``heads``.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> model = GPT((16,), 50, width=32, depth=1, heads=2, normalization="rms_norm")
        >>> model(torch.zeros(2, 16, dtype=torch.long)).shape
        torch.Size([2, 16, 50])

    Reference:
        Radford et al. 2019, section 2.3; blocks with the norm first as in Xiong et al. 2020,
        arXiv:2002.04745.
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, *, width: int = 128, depth: int = 4,
        heads: int = 4, activation: Spec = "gelu",
        normalization: Spec = "layer_norm", dropout: Spec = None, residual: Spec = "residual",
        init: Spec = None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = sizes_of("input_shape", input_shape)
        if len(shape) != 1:
            raise ValueError(f"input_shape of a gpt must be (T,), a window of tokens; got {shape}")
        self.length = shape[0]
        self.tokens = nn.Embedding(size_of("outputs", outputs), size_of("width", width))
        self.places = nn.Embedding(self.length, width)
        self.blocks = nn.Sequential(
            *(
                transformer_block(
                    width, heads, causal=True, activation=activation,
                    normalization=normalization, dropout=dropout, residual=residual,
                )
                for _ in range(size_of("depth", depth))
            )
        )  # fmt: skip
        self.norm = feature_norm(normalization, width)
        self.head = nn.Linear(width, outputs)
        _start(self, init)
        start_head(self.head)

    def features(self, x: Tensor) -> Tensor:
        """Return what the output layer sees, ``(N, T, width)``, for tokens ``(N, T)``."""
        if x.is_floating_point() or x.ndim != 2 or x.shape[1] > self.length:
            raise ValueError(
                f"a gpt takes token indices (N, T) with T up to {self.length}; got {x.dtype} of "
                f"shape {tuple(x.shape)}"
            )
        places = torch.arange(x.shape[1], device=x.device)
        return self.norm(self.blocks(self.tokens(x) + self.places(places)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, T, outputs)`` for tokens ``(N, T)``."""
        return self.head(self.features(x))


@brick(
    "model", "vit", aliases=("vision_transformer",), public="brickyard.nn",
    summary="A small vision transformer: patches of the image are the tokens.",
    use_when="You compare transformers with convolutions on small images, or have much data.",
    avoid_when="Some thousand images and no pretrained weights: a cnn of the same cost is ahead.",
    best_for="MNIST-like and CIFAR-like images with augmentation.",
    paper="Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, arXiv:2010.11929",
    tune_first="patch: half the side costs 4 to 16 times as much; then warmup and augmentation.",
    cost="12 * width^2 weights a block, (side / patch)^2 tokens an image.",
    pairs_with=("layer_norm", "gelu", "adamw", "random_affine"),
)  # fmt: skip
class ViT(nn.Module):
    """Run transformer blocks over the patches of an image and average what comes out.

    Math:
        h = patches W_p + P;   per block  h <- h + attention(norm(h)),  h <- h + ffn(norm(h));
        y = W mean over patches of norm(h) + b

    Args:
        input_shape: shape ``(C, H, W)`` of one image.
        outputs: number of outputs.
        patch: side of the square patches, in pixels; it must divide both sides.
        width: features a patch; attention cuts them into heads of 16 features.
        depth: number of blocks.
        activation: key or mapping of an activation; ``swiglu`` takes the place of a whole
            feed-forward net.
        normalization: key or mapping of a normalization of features.
        dropout: key or mapping of a dropout, at the end of every branch; None for none.
        residual: key or mapping of a residual brick; None for no skip paths.
        init: key or mapping of an initializer of single weights; None draws them from a truncated
            normal of deviation 0.02.

    Raises:
        ValueError: a size below 1, ``input_shape`` that is not ``(C, H, W)``, a patch that does not
            divide the image, or ``width`` that is no multiple of 16.
        CatalogError: an unknown key or a wrong option; the message starts with its path.

    Example:
        >>> ViT((1, 28, 28), 10, patch=7, width=32, depth=1)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    Reference:
        Dosovitskiy et al. 2021, section 3.1; averaging in place of a class token as in Beyer et
        al. 2022, arXiv:2205.01580.
    """

    def __init__(
        self, input_shape: Sequence[int], outputs: int, *, patch: int = 4, width: int = 64,
        depth: int = 4, activation: Spec = "gelu",
        normalization: Spec = "layer_norm", dropout: Spec = None, residual: Spec = "residual",
        init: Spec = None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = sizes_of("input_shape", input_shape)
        if len(shape) != 3 or any(side % size_of("patch", patch) for side in shape[1:]):
            raise ValueError(
                f"input_shape of a vit must be (C, H, W) with sides that are multiples of patch; "
                f"got {shape} and patch={patch}"
            )
        if size_of("width", width) % HEAD:
            raise ValueError(f"width of a vit must be a multiple of {HEAD}; got {width}")
        self.cut = nn.Conv2d(shape[0], width, patch, stride=patch)
        count = shape[1] // patch * (shape[2] // patch)
        self.places = nn.Embedding(count, width)
        self.blocks = nn.Sequential(
            *(
                transformer_block(
                    width, width // HEAD, activation=activation, normalization=normalization,
                    dropout=dropout, residual=residual,
                )
                for _ in range(size_of("depth", depth))
            )
        )  # fmt: skip
        self.norm = feature_norm(normalization, width)
        self.head = nn.Linear(width, size_of("outputs", outputs))
        _start(self, init)
        start_head(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, outputs)`` for ``(N, C, H, W)``."""
        patches = self.cut(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(patches + self.places.weight)).mean(1))
