"""What people type, and the bricks that they must find."""

import importlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.catalog import search, shelf
from brickyard.catalog.card import Card
from brickyard.catalog.concepts import CONCEPTS, STOP_WORDS
from brickyard.catalog.search import stem
from brickyard.errors import CatalogError

module = importlib.import_module("brickyard.catalog.search")

#: Query, bricks that must be among the first ``most``. Bricks that are not on the shelf (of a
#: package that is not written or not installed) are passed over.
WANTED = [
    ("class imbalance", "focal binary_focal cross_entropy bce dice tversky balanced_accuracy", 18),
    ("imbalanced segmentation", "dice tversky focal_tversky", 5),
    ("exploding gradients", "clip_by_global_norm clip_by_layer_norm clip_by_value", 9),
    ("loss becomes nan", "clip_by_global_norm", 15),
    ("vanishing gradients", "residual xavier_uniform_ kaiming_normal_ orthogonal_", 38),
    ("small batch", "group_norm ghost_batch_norm", 5),
    ("batch size of one", "instance_norm group_norm", 4),
    ("very large batch", "lamb lars", 4),
    ("overfitting", "dropout early_stopping", 18),
    ("outliers", "huber mae smooth_l1 log_cosh", 12),
    ("regression with outliers", "huber mae", 4),
    ("transformer", "gelu layer_norm adamw", 22),
    ("memory efficient optimizer", "adafactor lion", 9),
    ("dead relu", "leaky_relu prelu", 4),
    ("smooth relu", "softplus silu", 15),
    ("mobile", "hard_swish hard_sigmoid", 3),
    ("label noise", "mixup", 12),
    ("overconfident classifier", "cross_entropy label_smoothing", 12),
    ("object detection", "binary_focal giou ciou", 15),
    ("bounding box regression", "giou diou ciou smooth_l1", 12),
    ("face recognition", "triplet", 4),
    ("self-supervised learning", "info_nce nt_xent", 9),
    ("compress a model with a teacher", "distillation", 2),
    ("speech recognition", "ctc", 3),
    ("reinforcement learning", "policy_gradient value td ppo_clip", 12),
    ("variational autoencoder", "elbo", 3),
    ("train a gan", "wasserstein gan_hinge gan_non_saturating gradient_penalty", 15),
    ("discriminator normalization", "spectral_norm", 4),
    ("very deep networks", "lsuv_ zero_residual_ layer_scale residual_scale drop_path", 22),
    ("self normalizing network", "selu alpha_dropout lecun_normal_", 5),
    ("recurrent weights", "orthogonal_", 9),
    ("sparse features", "adagrad l1_penalty", 9),
    ("feature selection", "l1_penalty elastic_net", 4),
    ("weight decay", "adamw l2_penalty", 9),
    ("second order optimizer", "lbfgs sophia_g sophia_h", 9),
    ("no gradient available", "cma_es", 9),
    ("average the weights", "ema swa", 9),
    ("warm restarts", "cosine_restarts", 3),
    ("unknown training length", "wsd inverse_sqrt reduce_on_plateau", 12),
    ("validation loss stalls", "reduce_on_plateau early_stopping", 4),
    ("few epochs", "one_cycle", 9),
    ("prediction interval", "quantile", 3),
    ("large vocabulary", "linear_cross_entropy", 3),
    ("adversarial attack", "fgsm pgd", 4),
    ("threshold free metric", "auroc", 4),
    ("explained variance", "r2", 3),
    ("imbalanced metric", "balanced_accuracy f1", 5),
    ("my loss goes to nan after 100 steps", "clip_by_global_norm", 4),
    ("rmse", "root_mean_squared_error", 1),
]

#: Slips of the keyboard and other spellings: the brick that must come first.
SPELLED = [
    ("huber", "huber"), ("HuberLoss", "huber"), ("huber loss", "huber"), ("hubr", "huber"),
    ("Smooth L1", "smooth_l1"), ("smooth-l1 loss", "smooth_l1"), ("smoothl1", "smooth_l1"),
    ("cross entropy", "cross_entropy"), ("crossentropy", "cross_entropy"), ("gleu", "gelu"),
    ("cross-entrpy", "cross_entropy"), ("adma", "adam"), ("adamw optimizer", "adamw"),
    ("layernorm", "layer_norm"), ("laeyr norm", "layer_norm"), ("glorot", "xavier_uniform_"),
    ("drop out", "dropout"), ("early stoping", "early_stopping"), ("pinball", "quantile"),
    ("batchnorm", "batch_norm"), ("cosine anealing", "cosine"), ("focl", "focal"),
]  # fmt: skip


def keys(text, limit=10, kind=None):
    return [card.key for _, card in search(text, kind, limit)]


@pytest.mark.parametrize(("text", "wanted", "most"), WANTED, ids=[w[0] for w in WANTED])
def test_a_problem_finds_its_bricks(text, wanted, most):
    known = {card.key for card in shelf()}
    expected = [key for key in wanted.split() if key in known]
    if not expected:
        pytest.skip("none of these bricks is on the shelf")
    found = keys(text, most)
    assert not [key for key in expected if key not in found], f"{text!r} found {found}"


@pytest.mark.parametrize(("text", "key"), SPELLED, ids=[s[0] for s in SPELLED])
def test_a_name_is_found_however_it_is_spelled(text, key):
    if key not in {card.key for card in shelf()}:
        pytest.skip(f"{key} is not on the shelf")
    assert keys(text, 1) == [key]


@pytest.mark.parametrize("card", shelf(), ids=lambda card: card.key)
def test_every_brick_is_first_for_its_names(card):
    names = [card.key, *card.aliases]
    if not card.key.endswith("_"):  # of "constant" and "constant_", the words name the first
        names.append(card.key.replace("_", " ").upper())
    for name in names:
        assert keys(name, 1) == [card.key], name


def test_scores_fall_and_the_limit_holds():
    hits = search("gradient", limit=5)
    scores = [score for score, _ in hits]
    assert scores == sorted(scores, reverse=True)
    assert 0 < len(hits) <= 5
    assert min(scores) > 0


def test_a_kind_narrows_the_search():
    found = search("gradient", "optimizers")
    assert {card.kind for _, card in found} == {"optimizer"}
    with pytest.raises(CatalogError, match="did you mean 'optimizers'"):
        search("gradient", "optimisers")


@pytest.mark.parametrize("text", ["", "   ", "?!", "qqqzzzxxx"])
def test_nothing_is_found_for_nothing(text):
    assert search(text) == []


def test_stop_words_alone_are_looked_for():
    assert "best" in STOP_WORDS
    assert isinstance(search("best"), list)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=40))
def test_any_text_can_be_searched(text):
    for score, card in search(text):
        assert score > 0
        assert isinstance(card, Card)


# --- How it ranks, on cards made for it -----------------------------------------------------------


@pytest.fixture
def cards(monkeypatch):
    """Return a function that puts cards, given as key and fields, on the shelf."""

    def put(**fields):
        made = [Card(key, "loss", f"m:{key}_", **more) for key, more in fields.items()]
        monkeypatch.setattr(module, "shelf", lambda kind=None: made)

    return put


@pytest.mark.parametrize(
    ("strong", "weak"),
    [
        ({"aliases": ("zebra",)}, {"summary": "zebra"}),
        ({"summary": "zebra"}, {"use_when": "zebra"}),
        ({"use_when": "zebra"}, {"cost": "zebra"}),
        ({"best_for": "zebra"}, {"paper": "zebra"}),
        ({"paper": "zebra"}, {"avoid_when": "zebra"}),
    ],
)
def test_some_fields_weigh_more(cards, strong, weak):
    cards(a=weak, b=strong, c={"summary": "horse"})
    assert keys("zebra crossing") == ["b", "a"]


def test_a_rare_word_weighs_more_than_a_common_one(cards):
    cards(
        a={"summary": "horse"}, b={"summary": "zebra"}, c={"summary": "horse"},
        d={"summary": "horse"},
    )  # fmt: skip
    assert keys("horse zebra")[0] == "b"


def test_all_words_beat_many_times_one(cards):
    cards(a={"summary": "zebra zebra zebra zebra"}, b={"summary": "zebra horse and others"}, c={})
    assert keys("zebra horse")[0] == "b"


def test_a_phrase_beats_its_words_apart(cards):
    cards(
        a={"summary": "weight weight weight of it"},
        b={"summary": "decay decay decay of it"},
        c={"summary": "weight and its decay in one of them"},
    )
    assert keys("weight decay")[0] == "c"


def test_generic_words_count_for_little(cards):
    cards(a={"summary": "training training neural network"}, b={"summary": "zebra"}, c={})
    assert keys("training zebra")[0] == "b"


def test_a_kind_in_the_query_prefers_that_kind(monkeypatch):
    made = [
        Card("a", "optimizer", "m:a", summary="zebra"),
        Card("b", "loss", "m:b", summary="zebra"),
    ]
    monkeypatch.setattr(module, "shelf", lambda kind=None: made)
    assert keys("zebra loss")[0] == "b"
    assert keys("zebra optimizer")[0] == "a"


def test_a_short_text_beats_a_long_one(cards):
    cards(a={"summary": "zebra " + "word " * 30}, b={"summary": "zebra here"}, c={})
    assert keys("zebra")[0] == "b"


def test_words_match_by_stem_and_by_their_start(cards):
    cards(a={"summary": "Normalizes activations."}, b={"summary": "Clipped."}, c={})
    assert keys("normalization of an activation") == ["a"]
    assert keys("clipping") == ["b"]
    assert keys("activ") == ["a"]


@pytest.mark.parametrize(
    "words",
    [
        "clip clips clipped clipping",
        "regularize regularise regularization regularisation regularizer regularizers regularized",
        "optimizer optimizers optimization optimise",
        "imbalance imbalanced",
        "sparse sparsity",
        "classify classifier classification",
        "generalize generalization",
        "gradient gradients",
        "activation activations",
        "adaptive adaptively adaptation",
        "penalty penalties",
        "loss losses",
        "detect detection detector detectors",
        "generator generators generate generation",
    ],
)
def test_forms_of_a_word_share_their_stem(words):
    assert len({stem(word) for word in words.split()}) == 1


def test_different_words_keep_different_stems():
    words = "loss lasso norm normal mean median mode adam adamw adamax l1 l2 relu gelu elu selu"
    assert len({stem(word) for word in words.split()}) == len(words.split())


@settings(deadline=None)
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=15))
def test_a_stem_is_part_of_its_word(word):
    root = stem(word)
    assert root
    assert len(root) <= len(word)


@pytest.mark.parametrize(("a", "b", "slips"), [
    ("adam", "adam", 0), ("adma", "adam", 1), ("focl", "focal", 1), ("gelu", "selu", 1),
    ("tversky", "tverski", 1), ("", "ab", 2), ("abc", "", 3), ("lion", "sgd", 4),
])  # fmt: skip
def test_slips_are_counted(a, b, slips):
    assert module._slips(a, b) == slips == module._slips(b, a)


def test_no_phrase_means_two_things():
    phrases = [p.strip() for some, _ in CONCEPTS for p in some.split(",")]
    assert len(phrases) == len(set(phrases))
    assert all(words.strip() for _, words in CONCEPTS)


def test_searching_needs_no_torch():
    code = "import sys; from brickyard.catalog import search; search('outliers'); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
