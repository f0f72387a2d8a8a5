"""Layers and small networks: torch's own under one roof with ours, each with a card."""

from brickyard.nn import functional, init
from brickyard.nn.activations import (
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
)  # fmt: skip
from brickyard.nn.attention import GPT, ViT
from brickyard.nn.build import make_layer
from brickyard.nn.coders import VariationalAutoencoder
from brickyard.nn.dropout import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)  # fmt: skip
from brickyard.nn.frn import FRN
from brickyard.nn.gated import GeGLU, Maxout, SwiGLU
from brickyard.nn.generative import GeneratorAndCritic, Upsampler
from brickyard.nn.ghost import GhostBatchNorm1d, GhostBatchNorm2d
from brickyard.nn.models import CNN, MLP
from brickyard.nn.noise import DropConnect, DropPath, VariationalDropout
from brickyard.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
    spectral_norm,
    weight_norm,
)  # fmt: skip
from brickyard.nn.recurrent import CRNN
from brickyard.nn.residual import LayerScale, Residual, ResidualScale
from brickyard.nn.thresholds import TLU, SquaredReLU
from brickyard.nn.unet import UNet
from brickyard.nn.zoneout import Zoneout, ZoneoutLSTM

__all__ = [
    "CNN",
    "CRNN",
    "ELU",
    "FRN",
    "GELU",
    "GPT",
    "MLP",
    "SELU",
    "TLU",
    "AlphaDropout",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "GeGLU",
    "GeneratorAndCritic",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerScale",
    "LeakyReLU",
    "Maxout",
    "Mish",
    "PReLU",
    "RMSNorm",
    "ReLU",
    "Residual",
    "ResidualScale",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SquaredReLU",
    "SwiGLU",
    "Tanh",
    "UNet",
    "Upsampler",
    "VariationalAutoencoder",
    "VariationalDropout",
    "ViT",
    "Zoneout",
    "ZoneoutLSTM",
    "functional",
    "init",
    "make_layer",
    "spectral_norm",
    "weight_norm",
]  # fmt: skip
