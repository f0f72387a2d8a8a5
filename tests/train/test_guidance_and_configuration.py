"""Guidance and configuration: the errors 24 and 25 of those that users meet elsewhere.

The others of the training run have their tests beside what they are about: 18 to 21 in
test_precision.py, test_accumulation.py and tests/clip, 22 and 23 in test_resume.py, 26 in
test_lr_range.py.
"""

import re

import pytest
import torch
from torch import nn

from brickyard import catalog
from brickyard.catalog import KINDS
from brickyard.catalog.shelf import GUIDES
from brickyard.errors import RecipeError
from brickyard.train import Recipe, resolve
from brickyard.train.recipe.model import MANY, NESTED, ONE, REFUSED
from brickyard.train.setup import build_setup

BASE = {
    "data": "digits", "model": {"name": "mlp", "hidden": [8]}, "loss": "cross_entropy",
    "metrics": ["accuracy"], "budget": "1ep",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_24_which_is_best_has_an_answer_for_every_brick(kind):
    """Each has its place in the guide of its kind, and a card that says when and when not."""
    guide = (GUIDES / f"{kind.category}.md").read_text(encoding="utf-8")
    for card in catalog.shelf(kind.name):
        names = "|".join(re.escape(name) for name in (card.key, *card.aliases))
        assert re.search(rf"\b({names})(?!\w)", guide), f"{card.key} is not in the guide"
        assert card.use_when, card.key
        assert card.avoid_when, card.key
        assert card.best_for, card.key
        for option in card.options if card.origin == "own" else ():
            assert option.doc, f"{card.key}.{option.name} is not explained"


def test_24_why_such_a_default_is_said_where_it_was_chosen():
    """Every value of a recipe has an origin, and every field a sentence."""
    resolved = resolve({**BASE, "optimizer": {"name": "adamw", "lr": 0.1}})
    origins = {path: origin for path, _, origin in resolved.rows()}
    assert origins["optimizer.betas"] == "default of adamw"
    assert origins["model.activation"] == "default of mlp"
    assert origins["batch_size"] == "default"
    assert all(origins.values())
    fields = (Recipe.__doc__ or "").partition("Example:")[0]
    for name in Recipe.model_fields:
        assert re.search(rf"^ +{name}: \S+", fields, re.M), f"{name} is not explained"


# A misspelt option is refused, wherever it stands.


def _bricks():
    for field, kind in {**ONE, **MANY}.items():
        for card in catalog.shelf(kind):
            if card.key not in REFUSED:
                yield pytest.param(field, card, id=f"{field}-{card.key}")


@pytest.mark.parametrize(("field", "card"), list(_bricks()))
def test_25_a_misspelt_option_of_any_brick_is_refused(field, card):
    inner = NESTED.get((field, card.key), {})
    needed = {o.name: catalog.shelf(inner[o.name])[0].key
              for o in card.options if o.required and o.name in inner}  # fmt: skip
    for option in [*(o.name for o in card.options), "something"]:
        wrong = {"name": card.key, **needed, f"{option}x": 1}
        given = {**BASE, field: [wrong] if field in MANY else wrong}
        place = f"{field}.0" if field in MANY else field
        with pytest.raises(RecipeError, match=rf"{place}\.{option}x: .*has no option") as caught:
            resolve(given)
        if len(option) > 2 and option != "something":
            assert option in str(caught.value), "the right word is not far"


INSIDE = {
    "a field": ({"bacth_size": 3}, "bacth_size: .*'batch_size'"),
    "groups": ({"groups": {"no_dekay": "none"}}, "groups.no_dekay: .*'no_decay'"),
    "keep": ({"keep": {"besst": 3}}, "keep.besst: .*'best'"),
    "skips": ({"on_nonfinite": {"skips": 3}}, r"on_nonfinite: give stop, or \{skip: N\}"),
    "distillation": ({"distillation": {"teacher": "a", "temp": 3}}, "distillation: give .*temp"),
    "compile": ({"compile": {"mod": "a"}}, "compile: give true, false, or any of backend, mode"),
    "an override": ({"groups": {"overrides": {"head.*": {"lrr": 1.0}}}}, "'lrr'; did you mean"),
    "a pattern": ({"groups": {"overrides": {"haed.*": {"lr": 1.0}}}}, "'haed.*' matches no par"),
    "patterns": ({"groups": {"no_decay": ["*.bais"]}}, r"'\*.bais' matches no parameter"),
    "layers": ({"checkpoint_layers": ["bdoy.*"]}, r"'bdoy.\*' matches no layer"),
    "a changing number": ({"optimizer": {"name": "adamw", "lr": {"base": 1, "schedul": []}}},
                          "optimizer.lr: a number, or to change it over the run give"),
    "its schedule": ({"optimizer": {"name": "adamw", "weight_decay": {
        "base": 0.1, "schedule": [{"name": "cosine", "ennd": 1}]}}},
        "optimizer.weight_decay.schedule.0.ennd: cosine has no option"),
    "an inner optimizer": ({"optimizer": {"name": "lookahead", "inner": {
        "name": "adamw", "lrr": 1}}}, "optimizer.inner.lrr: adamw has no option"),
    "a part of a model": ({"model": {"name": "mlp", "dropout": {"name": "dropout", "prob": 1}}},
                          "prob"),
    "a clipped pattern": ({"clipping": {"name": "clip_by_global_norm", "max_norm": 1.0,
                           "skip": ["haed.*"]}}, "haed"),
    "monitor": ({"monitor": "acuracy"}, "no metric is called 'acuracy'"),
    "what is watched": ({"regularizers": [{"name": "early_stopping", "monitor": "acc"}]},
                        "early_stopping watches 'acc', which is not measured"),
}  # fmt: skip


@pytest.mark.parametrize("where", INSIDE)
def test_25_what_is_misspelt_inside_of_something_is_refused(where):
    changes, says = INSIDE[where]
    with pytest.raises(RecipeError, match=says):
        build_setup(resolve({**BASE, **changes}))


def test_25_every_brick_inside_of_a_brick_is_checked():
    """What holds other bricks is a list in one place: each of them refuses an unknown option."""
    for (field, name), inner in NESTED.items():
        for option, kind in inner.items():
            key = catalog.shelf(kind)[0].key
            others = {o: catalog.shelf(k)[0].key for o, k in inner.items()}
            wrong = {"name": name, **others, option: {"name": key, "nonsense": 1}}
            given = {**BASE, field: wrong}
            with pytest.raises(RecipeError, match=rf"{option}\.nonsense: {key} has no option"):
                resolve(given)


# An option that would be ignored is refused.

IGNORED = {
    "workers": ({"workers": 2}, "workers=2 has no effect: the samples are in memory"),
    "skips": ({"on_error": "skip"}, "on_error: skip has no effect"),
    "channels_last": ({"channels_last": True}, "channels_last: true has no effect: .*convolution"),
    "accumulate": ({"accumulate": 24}, "24 batches a step; an epoch has 23,.*take 23 at most"),
    "a metric twice": ({"data": "breast_cancer", "metrics": [
        {"name": "f1", "average": "macro"}, {"name": "f1", "average": "micro"},
        {"name": "f1", "average": "micro"}]},
        "metrics.2: f1 is measured already"),
    "a logger twice": ({"loggers": ["csv_log", "csv_log"]}, "loggers.1: csv_log is given twice"),
    "two schedules": ({"optimizer": {"name": "adamw", "lr": {"name": "cosine", "base": 0.1}},
                       "schedule": ["cosine"]}, "optimizer.lr has a schedule of its own"),
    "the rest twice": ({"schedule": ["cosine", "linear"]}, "only one piece can take the rest"),
    "telemetry": ({"telemetry": True, "optimizer": {"target": "torch.optim:SGD", "lr": 0.1}},
                  "telemetry needs an optimizer that makes norms"),
    "a scale without fp16": ({"precision": {"name": "fp32", "init_scale": 2.0}}, "no option"),
    "a weight average after the end": ({"regularizers": [{"name": "swa", "start": 30}]},
                                       "first weights after step 53, and the run has 23"),
}  # fmt: skip


@pytest.mark.parametrize("what", IGNORED)
def test_25_what_would_have_no_effect_is_refused(what):
    changes, says = IGNORED[what]
    with pytest.raises(RecipeError, match=says):
        build_setup(resolve({**BASE, **changes}))


def test_25_nothing_is_none():
    """`metrics:` without anything behind it, as YAML reads it, and `schedule=null`, is no brick."""
    recipe = Recipe.model_validate({**BASE, **dict.fromkeys(MANY)})
    assert [getattr(recipe, field) for field in MANY] == [[]] * len(MANY)


def _small(input_shape, outputs):
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Flatten(),
                         nn.Linear(4 * 36, outputs))  # fmt: skip


def test_25_channels_last_reaches_weights_and_batches():
    own = {**BASE, "model": {"target": f"{__name__}:_small"}, "channels_last": True}
    setup = build_setup(resolve(own))
    weight = next(setup.parts.model.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last)
    image = {**own, "data": "mnist5k", "model": {"name": "cnn", "width": 4}}
    batch = next(iter(build_setup(resolve(image)).parts.train.epoch(0)))[0]
    assert batch.is_contiguous(memory_format=torch.channels_last)
