"""Checks of whole models: what an output depends on, and in which mode it was computed."""

from __future__ import annotations

from collections.abc import Iterable

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check, some
from brickyard.doctor.observe.record import Seen


@check(
    34, "batch-mixing", "error", weight=0.9,
    sees="outputs of one sample that change when another sample of the batch is changed, in "
    "evaluation mode, on a copy",
    why="Samples see each other: a view or reshape mixed up dimensions, or a softmax or norm runs "
    "over the batch. Results depend on who else is in the batch.",
    try_="permute or transpose before reshape; give softmax the dimension of the classes.",
    allows="outputs that compare all samples with all (square in the batch), batch statistics in "
    "evaluation, graphs and sets given whole, models whose batch is not the first dimension",
    source="zhouhaoyi/Informer2020#59, PetrochukM/PyTorch-NLP#2",
)  # fmt: skip
def batch_mixing(seen: Seen) -> Iterable[Say]:
    """Report outputs that depend on other samples."""
    for note in seen.of("batch-mixing"):
        v = note.values
        yield Say(
            f"Changing one sample among {v['batch']} changed the outputs of {v['others']} of "
            f"{v['batch'] - 1} others, by up to {v['change']:.2g} of their size.",
            note.where, note.place, step=max(1, note.step),
        )  # fmt: skip


@check(
    35, "causality-leak", "error", weight=0.95,
    sees="scores at position t that change with a later token, where targets are the next tokens",
    why="The model sees the answer: the loss collapses, and generation is useless.",
    try_="Mask attention causally (is_causal=True or a triangular mask), pad convolutions left.",
    allows="targets that are not the inputs moved by one; encoders",
    source="huggingface/transformers#48745, #31673",
)  # fmt: skip
def causality_leak(seen: Seen) -> Iterable[Say]:
    """Report next-token models that see the next token."""
    for note in seen.of("causality-leak"):
        v = note.values
        yield Say(
            f"Changing the tokens after position {v['position']} of {v['length']} changed the "
            f"scores up to it by {v['change']:.2g} of their size; targets are the inputs moved by "
            "one.",
            note.where, note.place, step=max(1, note.step),
        )  # fmt: skip


@check(
    36, "label-independence", "error", weight=0.8,
    sees="the loss of a batch with its labels in another order",
    why="A loss that does not depend on which label belongs to which sample cannot teach it.",
    try_="Look at what the loss is given as targets.",
    allows="outputs that are equal for all samples, labels that are equal, losses that compare "
    "distributions",
    source="Zhang et al. 2017, Understanding deep learning requires rethinking generalization",
)  # fmt: skip
def label_independence(seen: Seen) -> Iterable[Say]:
    """Report losses that ignore the order of labels."""
    for note in seen.of("label-independence"):
        yield Say(
            f"{note.where} gave {note.values['value']:.6g} with the labels in order and with them "
            "permuted.",
            note.where, note.place, step=note.step,
        )  # fmt: skip


@check(
    37, "input-independence", "warning", weight=0.6,
    sees="the spread of outputs across the samples of a batch, relative to their size",
    why="The model gives the same answer to every input: it learns the mean at the best.",
    try_="Look for dead layers, zero weights, a rate that is too large, constant inputs.",
    allows="outputs that are all zero (last layers that start so), generators and single looks",
    source="Karpathy 2019, input-independent baseline",
)  # fmt: skip
def input_independence(seen: Seen) -> Iterable[Say]:
    """Report models that ignore their input."""
    for note in seen.of("same-output"):
        if note.count >= T.LOOKS and note.values.get("inputs_differ"):
            yield Say(
                f"Across {note.values['samples']} different inputs the output of {note.where} "
                f"varies by less than {T.SAME_OUTPUT:g} of its size, at {note.count} looks.",
                note.where, note.place,
            )  # fmt: skip


@check(
    38, "eval-determinism", "error", weight=0.9,
    sees="dropout that acts in evaluation mode: two passes of a copy differ, and it drew the noise",
    why="Validation scores and predictions are noisy and too low.",
    try_="F.dropout(x, p, training=self.training), or the nn.Dropout module.",
    allows="sampling by other functions (latents, noise), training=True written out (Monte Carlo "
    "dropout)",
    source="pytorch/vision#7103, rixwew/pytorch-fm#21",
)  # fmt: skip
def eval_determinism(seen: Seen) -> Iterable[Say]:
    """Report noise in evaluation mode."""
    for note in seen.of("noise-in-eval"):
        yield Say(
            f"In evaluation mode two passes of {note.where} over the same batch differ by "
            f"{note.values['change']:.2g} of the outputs' size; {note.values['by']} with "
            f"p={note.values['p']:g} drops values there.",
            note.where, note.place, step=max(1, note.step),
        )  # fmt: skip


@check(
    40, "overfit-one-batch", "warning", weight=0.6,
    sees="the loss after fitting one batch alone, on a copy (pre-flight only)",
    why="A model that cannot learn a single batch by heart has a bug, or no capacity.",
    try_="Look at the other rungs of the ladder first: gradients, inputs, loss.",
    allows="runs without the pre-flight ladder (preflight(...).findings() gives this finding)",
    source="Karpathy 2019, A recipe for training neural networks",
)  # fmt: skip
def overfit_one_batch(seen: Seen) -> Iterable[Say]:
    """Report batches that cannot be learned by heart."""
    for note in seen.of("overfit-one-batch"):
        if note.values["passed"] is False:
            yield Say(
                f"Fitting one batch alone, the loss went from {note.values['evidence']}; at least "
                f"{T.FIT_FALL:.0%} less is expected (best of {len(T.FIT_RATES)} rates, on copies, "
                "without dropout).",
                note.where, note.place,
            )  # fmt: skip


@check(
    41, "pad-in-loss", "warning", weight=0.7,
    sees="targets that end in runs of one token of different lengths, none of them ignored",
    why="Predicting padding is easy: the loss looks good and says little about real tokens.",
    try_="ignore_index=PAD in the loss, or -100 as target there.",
    allows="ignored targets, masks by hand (reduction='none'), class weights, tokens that occur "
    "elsewhere, too",
    source="huggingface/transformers#2759, axolotl-ai-cloud/axolotl#2227",
)  # fmt: skip
def pad_in_loss(seen: Seen) -> Iterable[Say]:
    """Report padding among the targets."""
    for loss in seen.losses.values():
        pads = loss.facts.get("padding", {})
        total, count = pads.get("total", 0), pads.get("count", 0)
        if not total or not count or pads.get("inner", 0) > 0.2 * count:
            continue
        enough = pads["rows"] > 0.2 * pads["of_rows"] and len(pads["lengths"]) >= 3
        if count / total > T.PAD_SHARE and enough:
            yield Say(
                f"{count / total:.0%} of the targets are token {pads['pad']} in runs at the ends "
                f"of rows ({pads['rows']} of {pads['of_rows']} rows, {len(pads['lengths'])} "
                "different lengths), and all of them count.",
                loss.function, loss.place,
            )  # fmt: skip


@check(
    42, "shift-error", "warning", weight=0.9,
    sees="the offset at which the targets of a token loss repeat the inputs; where targets are not "
    "seen, that at which the answers of a causal model do, after 200 steps",
    why="With offset 0 the model learns to copy; with 2 it skips a token.",
    try_="Shift once: logits[:, :-1] against tokens[:, 1:]; models that shift inside take "
    "labels = inputs.",
    allows="encoders and autoencoders (every position sees every token), masked tokens, several "
    "heads with offsets of their own, slow signals whose next token is mostly the present one, "
    "outputs over other classes than the input's vocabulary",
    source="huggingface/transformers#47394, #37830",
)  # fmt: skip
def shift_error(seen: Seen) -> Iterable[Say]:
    """Report targets that are shifted twice or not at all."""
    causal = {n.where for n in seen.of("causal")}
    sites = [x for x in seen.losses.values() if x.facts.get("distinct", 0) >= 4]
    shares = [
        (x, {k: n / max(t, 1) for k, (n, t) in x.facts.get("offsets", {}).items()}) for x in sites
    ]
    if any(s.get(1, 0) > T.OTHER_TOKENS for _, s in shares):
        return
    spoken = False
    for loss, share in shares:
        if loss.calls < T.IN_ROW:
            continue
        if share.get(2, 0) > T.SAME_TOKENS:
            spoken = True
            yield Say(
                f"Target t is input t + 2 at {share[2]:.0%} of positions, input t + 1 at "
                f"{share.get(1, 0):.0%}: shifted twice.",
                loss.function, loss.place,
            )  # fmt: skip
        elif share.get(0, 0) > T.SAME_TOKENS and causal:
            spoken = True
            yield Say(
                f"Target t is input t at {share[0]:.0%} of positions, and the model sees no later "
                "tokens: it learns to copy.",
                loss.function, loss.place,
            )  # fmt: skip
    if not spoken:
        yield from _shifted_answers(seen, causal)


def _shifted_answers(seen: Seen, causal: set[str]) -> Iterable[Say]:
    """Report causal models whose answers repeat another token than the next one."""
    for note in seen.of("token-answers"):
        if note.where not in causal or note.count < T.IN_ROW:
            continue
        v = note.values
        now, following, after = (n / max(v["of"], 1) for n in v["same"])
        loss = v["loss"] if v["loss"] is not None else v["entropy"]
        if after - max(following, now) > T.SHIFT_GAP:
            said = "the token after the next one: targets seem to be shifted twice"
        elif now - following > T.SHIFT_GAP and 0 <= loss < T.COPY_LOSS * v["entropy"]:
            said = (
                f"the present token, and the loss is {loss:.2g} where the tokens' entropy is "
                f"{v['entropy']:.2g}: it learned to copy"
            )
        else:
            continue
        yield Say(
            f"At {note.count} looks after {T.SHIFT_STEPS} steps the likeliest answers of "
            f"{note.where} were the present token at {now:.0%} of positions, the next one at "
            f"{following:.0%}, the one after it at {after:.0%}. Mostly {said}.",
            note.where, note.place,
        )  # fmt: skip


@check(
    53, "mode-wrong", "error", weight=0.9,
    sees="a model in evaluation mode, with dropout or batch norm, in steps that update it",
    why="Dropout is off and batch norm uses frozen statistics: training differs from what it was "
    "before the evaluation.",
    try_="model.train() at the beginning of each epoch, after every evaluation.",
    allows="single layers in evaluation mode inside a model that trains, frozen batch norms, "
    "models without such layers, models that the optimizer does not hold",
    source="fartashf/vsepp#4, tk-rusch/coRNN#1",
)  # fmt: skip
def mode_wrong(seen: Seen) -> Iterable[Say]:
    """Report updates in evaluation mode."""
    for note in seen.of("eval-in-step"):
        if note.count >= T.IN_ROW:
            before = ", after steps in training mode" if note.values["trained_before"] else ""
            yield Say(
                f"In {note.count} steps looked at{before}, {note.where} was in evaluation mode: "
                f"{note.values['count']} layers such as {some(note.values['layers'], 2)} did not "
                "act as in training.",
                note.where, note.place,
            )  # fmt: skip


@check(
    57, "train-eval-gap", "error", weight=0.7,
    sees="the loss of one training batch in evaluation mode over that in training mode, on a copy",
    why="The running statistics of batch norm do not describe the data: evaluation is worse than "
    "training on the very same samples.",
    try_="Default momentum (0.1), larger batches, or a norm without running statistics.",
    allows="the first steps, models without batch norm",
    source="discuss.pytorch.org/t/7561, discuss.pytorch.org/t/3323",
)  # fmt: skip
def train_eval_gap(seen: Seen) -> Iterable[Say]:
    """Report batch norms whose statistics fit no batch."""
    for note in seen.of("eval-gap"):
        v = note.values
        if v["ratio"] > T.EVAL_GAP and note.count >= T.IN_ROW:
            yield Say(
                f"The same training batch has loss {v['train']:.4g} in training mode and "
                f"{v['eval']:.4g} in evaluation mode ({v['ratio']:.1f} times), after "
                f"{v['steps']} steps.",
                note.where, note.place,
            )  # fmt: skip
    for name, sizes in seen.forwards.items():
        one, two = sizes.get("eval", 0.0), sizes.get("train", 0.0)
        if two > 0 and one > T.EVAL_SCALE * two and not sizes.get("norm", True):
            yield Say(
                f"Before the first step the outputs of {name} had a mean size of {one:.4g} in "
                f"evaluation mode and {two:.4g} in training mode.",
                name, sizes["place"], severity="warning", step=1,
                why="A layer depends on a state that only training mode sets up (spectral norm "
                "estimates it in training passes): this evaluation says nothing.",
                try_="Call the model once in training mode first, or evaluate after training.",
            )  # fmt: skip
