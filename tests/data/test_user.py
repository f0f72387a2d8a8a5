"""What a user's own function may return, and what it is told when it returns something else."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from brickyard.errors import DataError
from brickyard.train.data import Data, Split, batches, from_user
from brickyard.train.data import datasets as datasets_module

RNG = np.random.RandomState(1)
X, Y = RNG.rand(60, 4).astype(np.float32), np.arange(60) % 3
TX, TY = torch.from_numpy(X), torch.from_numpy(Y)


class Pairs(Dataset):
    """A dataset of pairs that counts how often it is read."""

    def __init__(self, x, y, **attributes):
        self.x, self.y, self.reads = x, y, 0
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.reads += 1
        return self.x[i], self.y[i]


FOUR = (X[:40], Y[:40], X[40:], Y[40:])
GIVEN = [
    FOUR,
    list(FOUR),
    ((X[:40], Y[:40]), (TX[40:], TY[40:])),
    (TensorDataset(TX[:40], TY[:40]), TensorDataset(TX[40:], TY[40:])),
    (Pairs(X[:40], Y[:40]), Pairs(TX[40:], TY[40:])),
    (Subset(Pairs(X, Y), range(40)), Subset(Pairs(X, Y), range(40, 60))),
    dict(zip(("x_train", "y_train", "x_val", "y_val"), FOUR, strict=True)),
    {"train": Pairs(X[:40], Y[:40]), "val": Pairs(X[40:], Y[40:])},
    {"train": (X[:40], Y[:40]), "val": (X[40:], Y[40:])},
    (pd.DataFrame(X[:40]), pd.Series(Y[:40]), pd.DataFrame(X[40:]), pd.Series(Y[40:])),
]
WHOLE = [
    (X, Y),
    (TX, TY),
    [X, Y],
    TensorDataset(TX, TY),
    Pairs(X, Y),
    {"x": X, "y": Y},
    {"dataset": Pairs(X, Y)},
    (pd.DataFrame(X), pd.Series(Y)),
]


def _samples(split):
    if split.in_memory:
        return split.x, split.y
    pairs = [split.dataset[i] for i in range(len(split))]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


@pytest.mark.parametrize("value", GIVEN, ids=range(len(GIVEN)))
def test_given_splits(value):
    data = from_user(value)
    assert (data.task, data.outputs, data.input_shape) == ("classification", 3, (4,))
    for split, part in ((data.train, slice(0, 40)), (data.val, slice(40, 60))):
        x, y = _samples(split)
        assert torch.equal(x, TX[part])
        assert torch.equal(y, TY[part])
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
    assert data.facts["class_counts"]["val"] == {"0": 6, "1": 7, "2": 7}
    assert data.facts["split"]["overlap"] == 0


@pytest.mark.parametrize("value", WHOLE, ids=range(len(WHOLE)))
def test_one_set_is_split(value):
    data = from_user(value, val=0.3, seed=5)
    reference = from_user((X, Y), val=0.3, seed=5)
    assert len(data.val) == 18
    for split, other in ((data.train, reference.train), (data.val, reference.val)):
        for a, b in zip(_samples(split), _samples(other), strict=True):
            assert torch.equal(a, b)


def test_settings_of_a_dict():
    data = from_user({
        "x": X * 100, "y": Y, "task": "regression", "val_share": 15, "standardize": True,
        "name": "mine", "features": list("abcd"),
    })  # fmt: skip
    assert (data.task, data.name, len(data.val)) == ("regression", "mine", 15)
    assert data.facts["features"] == list("abcd")
    assert abs(data.train.x.mean()) < 1e-5
    named = from_user({"x": X, "y": Y, "classes": ("a", "b", "c")})
    assert named.classes == ("a", "b", "c")
    twice = {"x_train": X, "y_train": Y, "x_val": X[:9], "y_val": Y[:9]}
    with pytest.raises(DataError, match="9 of 9 validation samples"):
        from_user(twice)
    assert len(from_user({**twice, "duplicates": "allow"}).val) == 9
    assert len(from_user((X, Y, X[:9], Y[:9]), duplicates="allow").val) == 9


def test_headings_of_a_frame_are_features():
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert from_user((frame, Y)).facts["features"] == list("abcd")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned None; is a return missing"),
        (3, "returned int; return Data; "),
        ((X, Y, X), "tuple of 3: ndarray, ndarray, ndarray"),
        ((Pairs(X, Y), X), "tuple of 2: Pairs, ndarray"),
        ({"X": X, "y": Y}, "unknown key 'X'; did you mean 'x'"),
        ({"x": X}, "the dict has x; it needs x and y"),
        ({"task": "regression"}, "the dict has no samples"),
        ((X[:40], X[40:], Y[:40], Y[40:]), "order of train_test_split"),
        ((X[:40], Y[:39], X[40:], Y[40:]), "x_train has 40, y_train 39"),
        ((X, Y, X[:0], Y[:0]), "x_val is empty"),
        ((X, Y[:9]), "y has 9 entries"),
        (DataLoader(TensorDataset(TX, TY)), "not a DataLoader"),
        (TensorDataset(TX), "two tensors, x and y; got 1"),
        ((Pairs(X, Y), Pairs(X[:0], Y[:0])), "the validation dataset is empty"),
        ((Pairs(X, Y), Pairs(X[:2], Y[:2])), "2 of 2 validation samples are training samples"),
        (Pairs(list("abc"), Y), "sample 0 is a str"),
        (Pairs(X, [{}] * 60), "sample 0 has dict"),
        (Pairs(X, [str(v) for v in Y]), "class indices 0, 1"),
        (Pairs(X, Y - 1), "class indices 0, 1"),
        ({"dataset": Pairs(X, Y), "standardize": True}, "standardize has no effect on datasets"),
        ({"dataset": Pairs(X, Y), "classes": ("a", "b")}, "labels run to 2, but there are 2 class"),
    ],
)
def test_refusals(value, message):
    with pytest.raises(DataError, match=message):
        from_user(value)


def test_streams_and_dict_samples_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    class Dicts(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {"image": 1, "label": 2}

    with pytest.raises(DataError, match="map-style"):
        from_user(Stream())
    with pytest.raises(DataError, match="item 0 has keys image, label"):
        from_user(Dicts())


def test_subsets_of_one_dataset_are_compared_by_index():
    base = Pairs(X, Y, targets=Y)
    with pytest.raises(DataError, match=r"2 of 22 validation samples .* index 38, 39"):
        from_user((Subset(base, range(40)), Subset(base, range(38, 60))))


def test_stated_targets_spare_the_reading(monkeypatch):
    monkeypatch.setattr(datasets_module, "READ_ALL", 10)
    monkeypatch.setattr(datasets_module, "SAMPLED", 2)
    honest = Pairs(X, Y, targets=Y.tolist(), classes=["a", "b", "c"])
    data = from_user(honest)
    assert honest.reads < 10
    assert data.classes == ("a", "b", "c")
    assert data.facts["labels_from"] == "targets"
    assert data.facts["split"]["overlap"] is None
    lying = Pairs(X, Y, targets=(Y + 1).tolist())
    assert from_user(lying).facts["labels_from"] == "every sample"
    assert lying.reads >= 60
    assert from_user(Subset(honest, range(30))).facts["labels_from"] == "targets"


def test_regression_datasets_are_standardised_too():
    y = X.sum(1) * 50
    data = from_user((Pairs(X[:40], y[:40]), Pairs(X[40:], y[40:])))
    assert (data.task, data.outputs) == ("regression", 1)
    assert data.target_mean == pytest.approx(y[:40].mean(), rel=1e-6)
    _, got = _samples(data.val)
    assert got.shape == (20, 1)
    np.testing.assert_allclose(data.restore(got)[:, 0], y[40:], rtol=1e-5)


def test_bad_samples_are_found_when_they_are_read(monkeypatch):
    monkeypatch.setattr(datasets_module, "READ_ALL", 10)
    x, y = [torch.from_numpy(v) for v in X.copy()], Y.copy()
    base = Pairs(x, y, targets=y.copy(), classes=list("abc"))
    data = from_user((Subset(base, range(40)), Subset(base, range(40, 60))))
    x[5] = torch.zeros(3)
    x[6] = torch.full((4,), torch.nan)
    y[7] = 3
    for index, message in (
        (5, r"sample 5 has \(3,\) and the first \(4,\)"),
        (6, "sample 6 has non-finite"),
        (7, "labels must be 0 to 2; sample 7 has .*3"),
    ):
        with pytest.raises(DataError, match=message):
            data.train.dataset[index]


def test_reading_draws_no_random_numbers_of_the_run():
    class Noisy(Pairs):
        def __getitem__(self, i):
            return self.x[i] + torch.rand(4) * 1e-3, self.y[i]

    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    from_user((Noisy(TX[:40], Y[:40]), Noisy(TX[40:], Y[40:])))
    assert torch.equal(torch.rand(3), expected)


def test_bytes_become_pixels():
    images = torch.randint(0, 256, (60, 1, 3, 3), dtype=torch.uint8)
    x, _ = from_user(Pairs(images, Y)).train.dataset[0]
    assert x.dtype == torch.float32
    assert x.max() <= 1


def _made(**changes):
    fields = {
        "name": "mine", "task": "classification", "train": Split(TX[:40], TY[:40]),
        "val": Split(TX[40:], TY[40:]), "input_shape": (4,), "outputs": 3,
    }  # fmt: skip
    return Data(**{**fields, **changes})


def test_own_data_passes_through():
    data = _made(facts={"fingerprint": "mine"})
    assert from_user(data) is data
    facts = {"fingerprint": "mine", "duplicates": "allow"}
    allowed = _made(val=Split(TX[:9], TY[:9]), facts=facts)
    assert from_user(allowed) is allowed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_shape": (5,)}, r"have shape \(4,\); Data says input_shape=\(5,\)"),
        ({"outputs": 2}, "class indices must be 0 to 1; the training y has 0 to 2"),
        ({"val": Split(TX[40:], TY[40:].float())}, "int64 class indices .* validation y is"),
        ({"val": Split(TX[:5], TY[:5])}, r"5 of 5 .* sample 0 \(training sample 0\)"),
        ({"train": Split(TX[:40] / 0, TY[:40])}, "non-finite"),
        ({"task": "regression", "outputs": 1}, r"float targets of shape \(n, outputs\)"),
    ],
)
def test_own_data_is_checked(changes, message):
    with pytest.raises(DataError, match=message):
        from_user(_made(**changes))


def test_datasets_reach_the_batches():
    data = from_user((Pairs(X[:40], Y[:40]), Pairs(X[40:], Y[40:])))
    x, y = next(batches(data.val, 20, shuffle=False, seed=0).epoch(0))
    assert torch.equal(x, TX[40:])
    assert torch.equal(y, TY[40:])


class _Large(Dataset):
    """Hold more samples than are read at the start; ``noise`` is drawn when one is read."""

    def __init__(self, n=2500, bias=0.0, noise=None, source=None):
        self.targets = [i % 3 for i in range(n)]
        self.bias, self.noise, self.source = bias, noise, source

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        drawn = 0.0
        if self.noise is not None:
            drawn = self.noise * float(torch.randn((), generator=self.source))
        return torch.tensor([float(i) + self.bias, drawn]), self.targets[i]


def test_a_large_dataset_has_a_fingerprint_that_notices_changes():
    def of(**changes):
        return from_user(_Large(**changes), seed=0).facts["fingerprint"]

    first = of()
    before = torch.get_rng_state()
    assert of() == first
    assert torch.equal(before, torch.get_rng_state())
    assert of(bias=1.0) != first, "other samples"
    assert of(n=2501) != first, "another length"
    swapped = _Large()
    swapped.targets[1235], swapped.targets[1234] = swapped.targets[1234], swapped.targets[1235]
    assert from_user(swapped, seed=0).facts["fingerprint"] != first, "labels are all looked at"
    augmented = of(noise=0.1)
    torch.rand(3)
    assert of(noise=0.1) == augmented, "draws from the global generator repeat"
    own = {of(noise=0.1, source=torch.Generator().manual_seed(s)) for s in range(4)}
    assert len(own) == 1, "samples that differ each time say nothing of the data"
    assert len(own | {of(n=2501, noise=0.1, source=torch.Generator())}) == 2


def test_data_made_by_hand_gets_a_fingerprint_too():
    def made(shift, dataset=False):
        x = torch.arange(60.0).reshape(20, 3) + shift
        y = torch.arange(20) % 2
        splits = [Split(x[:15], y[:15]), Split(x[15:], y[15:])]
        if dataset:
            splits = [Split(dataset=_Large(30 * n, bias=shift)) for n in (2, 1)]
        shape = (2,) if dataset else (3,)
        return from_user(Data("mine", "classification", *splits, shape, 3 if dataset else 2))

    for dataset in (False, True):
        one, same, other = (made(s, dataset).facts["fingerprint"] for s in (0.0, 0.0, 1.0))
        assert one == same
        assert one != other


@pytest.mark.parametrize(
    ("image", "says"),
    [([8, 9], "72 pixels.*64 entries"), ([2, 4, 8], "1 or 3 channels"), ("8x8", "must be .H, W.")],
)
def test_the_shape_of_pictures_is_checked(image, says):
    x = torch.rand(40, 64)
    with pytest.raises(DataError, match=says):
        from_user({"x": x, "y": torch.arange(40) % 2, "image": image})
    data = from_user({"x": x, "y": torch.arange(40) % 2, "image": [1, 8, 8]})
    assert data.facts["image"] == [1, 8, 8]


def _of_form(form, y, outputs, x=None):
    x = torch.rand(len(y), 1, 4, 4) if x is None else x
    splits = Split(x[4:], y[4:]), Split(x[:4], y[:4])
    return from_user(Data("mine", form, *splits, tuple(x.shape[1:]), outputs))


FORMS = {  # right targets, outputs, a wrong value, what is said of it
    "segmentation": (lambda: torch.randint(0, 3, (9, 4, 4)), 3, 3, "must be 0 to 2 or -100"),
    "language_model": (lambda: torch.randint(0, 5, (9, 6)), 5, 7, "must be 0 to 4 or -100"),
    "transcription": (lambda: torch.randint(0, 5, (9, 2)), 5, -2, "must be 0 to 4 or -1"),
    "multi_label": (lambda: torch.randint(0, 2, (9, 3)).float(), 3, 0.5, "0 or 1 for every label"),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form_may_be_ones_own(form):
    make, outputs, wrong, says = FORMS[form]
    y = make()
    none = {"transcription": -1, "multi_label": 0.0}.get(form, -100)
    y.view(len(y), -1)[:, -1] = none  # for no symbol, no pixel, no token
    assert _of_form(form, y, outputs).task == form
    y.view(len(y), -1)[0, 0] = wrong
    with pytest.raises(DataError, match=f"{says}.*the validation y"):
        _of_form(form, y, outputs)
    with pytest.raises(DataError, match=rf"{form} takes .*; the training y is .*\(5, 3, 2, 2\)"):
        _of_form(form, torch.zeros(9, 3, 2, 2, dtype=torch.int64), outputs)
