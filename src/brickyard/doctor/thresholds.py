"""Every threshold of the doctor, each with its reason; nothing else decides when it speaks.

Exact checks (identity, order, equality) need none of these, apart from how often in a row.
"""

from __future__ import annotations

# -- what is looked at ------------------------------------------------------------------------
#: Steps at the beginning that are looked at closely: bugs of order and identity show in each step.
FIRST_STEPS = 4
#: Then two steps at 8, 24, 72 ...: the state of a run changes on the scale of its length.
SECOND_LOOK = 8
LOOK_FACTOR = 3
WINDOW = 2
#: From here on at a fixed distance, so that long runs are not left alone.
RARE_LOOKS = 1024
#: Looks up to this step are always made; later ones only within the share below.
ALWAYS_LOOKS = 72
#: Our share of the run's time beyond which no further close look is made (the promise is 5 %).
SHARE = 0.025
#: Beginnings of epochs looked at closely: a mode left on by the evaluation shows after the first.
EPOCHS_LOOKED = 2
#: Elements compared per parameter around a step: enough to see a change, bounded in memory.
ELEMENTS = 2048
#: Samples that are compared from one pass over their data set to the next, by index.
PROBES = 8
#: Steps whose loss graphs are followed, for a leak of memory.
LEAK_STEPS = 30

# -- exact checks: how often in a row ----------------------------------------------------------
#: Once can be a deliberate exception (a first step, a warm start); twice in a row is the loop.
IN_ROW = 2
#: A property of every look at a parameter; one look may meet an unlucky batch.
LOOKS = 3
#: Rows that sum to 1 within this are probabilities: float32 softmax is off by 1e-6 at most.
SUM_TO_ONE = 1e-4
#: Log-probabilities above this are none; float32 log_softmax stays below 1e-6.
ABOVE_ZERO = 1e-6
#: Relative change of one sample's output when another sample changes: rounding is below 1e-6.
MIXING = 1e-4

# -- symptoms ----------------------------------------------------------------------------------
#: Median size of an update relative to its weights: healthy runs stay below 0.15 (Adam at 1e-2).
UPDATE_HIGH = 0.3
#: One update many times the weights: healthy first steps reach 0.14, a thousandfold rate 140.
UPDATE_WILD = 3.0
#: Updates that float32 weights (24 bits, 6e-8) can hardly take.
UPDATE_LOW = 1e-6
#: A loss above its value at the beginning or its minimum: noise of single steps is averaged over
#: 10 steps and must last. Twice the minimum is common in healthy runs (small losses, curricula,
#: plateaus of several tasks), so it must be ten times and cross half of the first loss upwards;
#: above the start by half and by 0.5, since warm-ups and first batches exceed it by less.
DIVERGED = 10.0
DIVERGED_HALF = 0.5
DIVERGED_STEPS = 50
ABOVE_START = 1.5
ABOVE_LEAST = 0.5
ABOVE_START_STEPS = 100
#: Learned nothing: still above 98 % of the best constant answer's loss after an epoch and this.
NOT_LEARNING = 0.98
NOT_LEARNING_STEPS = 300
#: A unit that did not fire in this many batches, and this many samples, is dead.
DEAD_BATCHES = 8
DEAD_SAMPLES = 256
#: Share of a layer's units: half of a layer is no accident, nine tenths is no layer.
DEAD_SHARE = 0.5
DEAD_MOST = 0.9
#: First loss over that of a model without knowledge. Above: against equal scores (ln C, ln 2) or
#: answers of zero (mean square of the targets). The entropy of rare labels, or the variance of
#: targets far from zero, is lower: every healthy start would exceed it, so those count for losses
#: that are too low alone. Information only: tied embeddings of unit size, scores that are distances
#: or divided by a small temperature, and targets of tiny scale start far above and learn well.
INIT_LOSS = (0.5, 3.0)
#: Loss of a batch in evaluation mode over training mode; small batches reach 2.
EVAL_GAP = 3.0
#: Size of outputs in evaluation over training mode before the first step, without batch norm:
#: healthy models give 0.5 to 2, a spectral norm that was never estimated 10,000.
EVAL_SCALE = 50.0
#: Planned length of a schedule against the steps made.
HORIZON_LONG = 1.5
HORIZON_SHORT = 0.5
#: A run that ends before half of its schedule may have been stopped on purpose: information only,
#: unless the plan is too long by exactly the batch size or the number of accumulated passes.
UNIT_OFF = 0.02
UNIT_LEAST = 8  # smaller batches: stopped after a quarter of the epochs looks the same
UNIT_STEPS = 20
#: Rate against its peak below which nothing is learned any more, before this part of the run.
LR_VANISHED = 1e-3
LR_EARLY = 0.2
#: Changes of direction of the rate in an epoch: one cycle has one, restarts have two a cycle.
LR_FLIPS = 3
#: Label entropy within batches over that of the data set: sorted labels give 0.2, shuffled 0.97.
BATCH_ENTROPY = 0.5
#: Share of padding among the targets that count: documents that end early reach some percent.
PAD_SHARE = 0.05
#: Share of positions at which the targets equal the inputs, moved by an offset.
SAME_TOKENS = 0.99
OTHER_TOKENS = 0.9
#: Where targets are not seen: share of answers that repeat the input at another offset, beyond
#: those that repeat the next token, after so many steps. Runs of one token do not count: slow
#: signals are best predicted by their present value. For offset 0 the loss must tell, too: a copy
#: is learned to a tenth of the tokens' entropy, a persistent signal is not.
SHIFT_STEPS = 200
SHIFT_GAP = 0.2
COPY_LOSS = 0.1
#: Overlap of validation with training data: one copy is a warning, one in a hundred an error.
OVERLAP_ERROR = 0.01
#: Equal contents can be chance (blank lines of a text, one scan twice): fewer are information.
OVERLAP_LEAST = 4
#: Duplicates in the training data worth a word.
DUPLICATES = 0.05
#: Values that look like bytes that nobody scaled.
RAW_RANGE = 20.0
RAW_STD = 10.0
RAW_RATIO = 1e3
#: Skipped steps of mixed precision: a growing scale costs one in 2000, half a percent.
SCALER_SKIPS = 0.05
#: Dropout beyond which hardly anything is left.
DROPOUT = 0.8
#: Batch norm: momentum outside of this range follows nothing or the last batch alone.
BN_MOMENTUM = (1e-3, 0.9)
#: Values per channel below which a batch's variance says little.
BN_VALUES = 8
#: Learning rates no optimizer of that family is used with.
ADAM_RATES = (1e-8, 0.3)
SGD_RATES = (1e-9, 100.0)
#: Smallest epsilon that float16 can hold, and one that outweighs the gradient's size.
EPS_HALF = 6e-8
EPS_LARGE = 1e-2
#: Spread of weights times the root of the fan-in: initializers give 0.5 to 2.
INIT_SPREAD = (0.02, 10.0)
#: Elements of one gradient whose norm is taken at every step: the cost of a sum.
GAUGE = 16384
#: Logarithm of a gradient's norm: distance above the median of 200 steps in units of the median
#: deviation, how often within 50 steps; the deviation counts as 0.05 (5 %) at least, since nearly
#: constant norms deviate by nothing.
GRAD_MAD = 8.0
GRAD_TIMES = 3
GRAD_WINDOW = 200
GRAD_RECENT = 50
GRAD_LEAST = 0.05
#: Gradient of the first layer over that of the last: residual and normalized networks stay above
#: 1e-3, twenty sigmoid layers give 1e-12.
GRAD_VANISHED = 1e-6
#: Relative change of outputs across samples below which they ignore their input.
SAME_OUTPUT = 1e-6
#: Output spread over that of the targets, below which predictions have collapsed; how often in a
#: row, on how many samples; a class that has nine tenths of the labels may well be the only answer.
COLLAPSE = 0.01
COLLAPSE_ROWS = 32
COLLAPSE_LABEL = 0.9
#: Evaluations in a row without a better loss, while the training loss fell by this share: the
#: state of most long runs (early stopping and kept checkpoints handle it), so information only.
STALE_ROUNDS = 5
STALE_FALL = 0.2
#: Evaluation loss below that of the following epoch of training by this share, by so many standard
#: errors, in so many evaluations: information, since an easier split does the same.
BETTER = 0.05
BETTER_ERRORS = 4.0
BETTER_ROUNDS = 3
#: Evaluation at chance (the share of the most frequent label, within two standard errors) while
#: training is right: random labels that are learned by heart, or pairs that do not belong together.
#: Where one class has most of the labels, chance and skill are close.
CHANCE_TRAIN = 0.9
CHANCE_ROWS = 100
CHANCE_LABEL = 0.6
CHANCE_ERRORS = 2.0

# -- reading the curves (their noise: brickyard.reading) -----------------------------------------
#: Fewer epochs than this, or windows of so many steps, make no trend.
CURVE_WINDOWS = 4
CURVE_STEPS = 20
#: Fall over the last windows, over all that was gained, beyond which more is to be had.
CURVE_FALL = 0.02
#: Rise of the validation loss over its best, and fall of the training loss meanwhile: less is noise
#: of two evaluations.
OVERFIT_RISE = 0.03
OVERFIT_FALL = 0.02
#: Way from a constant answer's loss to zero: half of it is a weak model, or a noisy task.
UNDERFIT_WAY = 0.5
#: Share of what was gained that counts as nothing.
PLATEAU = 0.02

# -- the ladder before training ----------------------------------------------------------------
#: The first loss over that of an answer of zeros: networks of the usual starts lie in 0.9 to 1.3.
FIRST_LOSS = (0.5, 3.0)
#: Rates of Adam that are tried on one batch: one of three orders of magnitude suits most networks.
FIT_RATES = (1e-3, 1e-2, 1e-1)
#: A batch that is learned by heart loses most of its loss; label smoothing leaves a floor.
FIT_FALL = 0.8
#: ... of one that learns without targets (a code, two views), whose floor nobody knows.
FIT_FALL_ALONE = 0.2
#: Fewer steps than this do not learn a batch by heart, and prove nothing.
FIT_LEAST = 50
#: Blank inputs must leave this share of what was gained: less is what chance and biases give.
BLANK_WORSE = 0.05
#: Two losses that differ by less are the same number, rounded.
SAME_LOSS = 1e-6
#: First and last rate of the sweep, and its steps.
RATE_SWEEP = (1e-6, 1.0, 60)
#: Largest over smallest deviation of layers' outputs, and of gradients: healthy deep networks stay
#: within two orders of magnitude forward and three backward.
SPREAD = 1e4
SPREAD_BACK = 1e5
