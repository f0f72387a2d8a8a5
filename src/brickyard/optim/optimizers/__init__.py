"""The named optimizers: each a short composition of rules, with torch's signature and a card."""

from brickyard.optim.optimizers.adafactor import Adafactor
from brickyard.optim.optimizers.adam import Adam, AdamW
from brickyard.optim.optimizers.lamb import LAMB
from brickyard.optim.optimizers.lion import Lion
from brickyard.optim.optimizers.rmsprop import RMSprop
from brickyard.optim.optimizers.sgd import SGD

__all__ = ["LAMB", "SGD", "Adafactor", "Adam", "AdamW", "Lion", "RMSprop"]
