"""The functional forms of our own layers, as ``torch.nn.functional`` has them for torch's."""

from brickyard.nn.frn import filter_response_norm
from brickyard.nn.gated import geglu, maxout, swiglu
from brickyard.nn.ghost import ghost_batch_norm
from brickyard.nn.noise import drop_path, variational_dropout
from brickyard.nn.thresholds import squared_relu, tlu
from brickyard.nn.zoneout import zoneout

__all__ = [
    "drop_path", "filter_response_norm", "geglu", "ghost_batch_norm", "maxout", "squared_relu",
    "swiglu", "tlu", "variational_dropout", "zoneout",
]  # fmt: skip
