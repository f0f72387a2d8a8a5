"""The named optimizers: each a short composition of rules, with torch's signature and a card."""

from brickyard.optim.optimizers.adafactor import Adafactor
from brickyard.optim.optimizers.adagrad import Adadelta, Adagrad
from brickyard.optim.optimizers.adam import Adam, AdamW, AMSGrad
from brickyard.optim.optimizers.cma_es import CMAES
from brickyard.optim.optimizers.curvature import gauss_newton_bartlett, hutchinson
from brickyard.optim.optimizers.lamb import LAMB
from brickyard.optim.optimizers.lars import LARS
from brickyard.optim.optimizers.lbfgs import LBFGS
from brickyard.optim.optimizers.lion import Lion
from brickyard.optim.optimizers.lookahead import Lookahead
from brickyard.optim.optimizers.muon import Muon
from brickyard.optim.optimizers.nadam import Adamax, NAdam
from brickyard.optim.optimizers.nag import NAG
from brickyard.optim.optimizers.radam import RAdam, Ranger
from brickyard.optim.optimizers.rmsprop import RMSprop
from brickyard.optim.optimizers.sgd import SGD
from brickyard.optim.optimizers.sophia import SophiaG, SophiaH
from brickyard.optim.optimizers.yogi import AdaBound, Yogi

__all__ = [
    "CMAES", "LAMB", "LARS", "LBFGS", "NAG", "SGD", "AMSGrad", "AdaBound", "Adadelta", "Adafactor",
    "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Lookahead", "Muon", "NAdam", "RAdam", "RMSprop",
    "Ranger", "SophiaG", "SophiaH", "Yogi", "gauss_newton_bartlett", "hutchinson",
]  # fmt: skip
