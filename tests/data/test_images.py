"""Image folders: pixels against Pillow, sizes, splits, and what cannot be read."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from brickyard.errors import DataError
from brickyard.train.data import batches, image_folder, images


def _picture(seed, size=(6, 4), mode="RGB"):
    shape = (size[1], size[0]) + ((3,) if mode == "RGB" else ())
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, np.uint8), mode=None)


def _read_all(data):
    for split in (data.train, data.val):
        list(batches(split, 8, shuffle=False, seed=0).epoch(0))


@pytest.fixture
def folder(tmp_path):
    for i in range(20):
        place = tmp_path / "photos" / ("cat" if i % 2 else "dog") / ("sub" if i % 5 == 0 else "")
        place.mkdir(parents=True, exist_ok=True)
        _picture(i).save(place / f"{i:02}.png")
    return tmp_path


def _pixels(data):
    return torch.cat([data.train.x, data.val.x])


def test_pixels(folder):
    data = image_folder("photos", root=folder)
    assert (data.name, data.classes, data.input_shape) == ("photos", ("cat", "dog"), (3, 4, 6))
    assert (len(data.train), len(data.val)) == (16, 4)
    assert data.facts["class_counts"]["val"] == {"cat": 2, "dog": 2}
    wanted = {np.asarray(_picture(i)).transpose(2, 0, 1).tobytes(): i % 2 for i in range(20)}
    got = {
        (x * 255).round().byte().numpy().tobytes(): 1 - int(y)
        for split in (data.train, data.val)
        for x, y in zip(split.x, split.y, strict=True)
    }
    assert got == wanted
    assert _pixels(data).max() <= 1


def test_grey_and_size(folder):
    grey = image_folder("photos", color="grey", root=folder)
    assert grey.input_shape == (1, 4, 6)
    square = image_folder("photos", size=4, root=folder)
    assert square.input_shape == (3, 4, 4)
    wide = image_folder("photos", size=(2, 6), root=folder)
    assert wide.input_shape == (3, 2, 6)
    crop = np.asarray(_picture(0).crop((1, 0, 5, 4))).transpose(2, 0, 1)
    distances = (_pixels(square) * 255 - torch.from_numpy(crop.copy())).abs().amax((1, 2, 3))
    assert distances.min() < 1e-3  # covering 4x4 from 6x4 needs no scaling: the centre is cut out


def test_lazy_reading_gives_the_same(folder):
    ready = image_folder("photos", root=folder)
    lazy = image_folder("photos", in_memory=False, root=folder)
    assert lazy.train.dataset is not None
    assert ready.train.in_memory
    x, y = next(batches(lazy.val, 4, shuffle=False, seed=0).epoch(0))
    reference = {(v * 255).round().byte().numpy().tobytes(): int(c)
                 for s in (ready.train, ready.val)
                 for v, c in zip(s.x, s.y, strict=True)}  # fmt: skip
    assert all(reference[(v * 255).round().byte().numpy().tobytes()] == int(c)
               for v, c in zip(x, y, strict=True))  # fmt: skip
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert lazy.facts["fingerprint"]


def test_large_folders_stay_on_disk(folder, monkeypatch):
    monkeypatch.setattr(images, "IN_MEMORY_BYTES", 100)
    assert not image_folder("photos", root=folder).train.in_memory
    assert image_folder("photos", in_memory=True, root=folder).train.in_memory


def test_own_validation_folder(folder):
    for i in range(4):
        place = folder / "held" / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        _picture(100 + i).save(place / f"{i}.png")
    data = image_folder("photos", val="held", root=folder)
    assert (len(data.train), len(data.val)) == (20, 4)
    _picture(3).save(folder / "held" / "cat" / "copy.png")
    for in_memory in (True, False):
        options = {"val": "held", "in_memory": in_memory, "root": folder}
        with pytest.raises(DataError, match="1 of 5 validation samples are training samples"):
            image_folder("photos", **options)
        assert len(image_folder("photos", duplicates="allow", **options).val) == 5
    (folder / "held" / "cow").mkdir()
    _picture(7).save(folder / "held" / "cow" / "1.png")
    with pytest.raises(DataError, match=r"class folder 'cow', which .*photos lacks"):
        image_folder("photos", val="held", root=folder)


def test_val_and_seed(folder):
    assert len(image_folder("photos", val=6, root=folder).val) == 6
    prints = [image_folder("photos", seed=s, root=folder).facts["fingerprint"] for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_identical_images_stay_together(folder):
    for i in range(0, 20, 2):
        _picture(i).save(folder / "photos" / "dog" / f"copy{i}.png")
    for seed in range(3):
        data = image_folder("photos", seed=seed, root=folder)
        assert data.facts["split"]["identical"] == 10
        assert data.facts["split"]["overlap"] == 0


def test_other_files_are_passed_over(folder):
    (folder / "photos" / "dog" / "notes.txt").write_text("x")
    (folder / "photos" / "dog" / ".hidden.png").write_text("x")
    (folder / "photos" / ".cache").mkdir()
    assert image_folder("photos", root=folder).facts["files_passed_over"] == 1


def test_odd_images(tmp_path):
    view = images.ImageView(None, "rgb")
    deep = Image.fromarray(np.full((2, 3), 65535 // 2, np.uint16))
    deep.save(tmp_path / "deep.png")
    np.testing.assert_allclose(view.read(tmp_path / "deep.png"), 0.5, atol=1e-4)
    assert view.read(tmp_path / "deep.png").shape == (3, 2, 3)
    Image.new("P", (3, 2), 5).save(tmp_path / "palette.png")
    Image.new("RGBA", (3, 2), (255, 0, 0, 9)).save(tmp_path / "alpha.png")
    assert view.read(tmp_path / "alpha.png")[0].max() == 1
    turned = Image.new("RGB", (3, 2))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert view.read(tmp_path / "turned.jpg").shape == (3, 3, 2)
    assert view.check([tmp_path / "turned.jpg"]) == (3, 3, 2)
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="outside 0 to 65535"):
        view.read(tmp_path / "float.tiff")


def test_unreadable_images(folder):
    whole = (folder / "photos" / "cat" / "01.png").read_bytes()
    (folder / "photos" / "cat" / "bad.png").write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"bad.png cannot be read as an image.*truncated"):
        image_folder("photos", root=folder)
    data = image_folder("photos", in_memory=False, root=folder)
    with pytest.raises(DataError, match=r"bad.png cannot be read as an image.*truncated"):
        _read_all(data)
    (folder / "photos" / "cat" / "bad.png").write_text("no image")
    for options in ({}, {"size": 4}, {"in_memory": False}):
        with pytest.raises(DataError, match=r"bad.png cannot be read as an image: unknown format"):
            image_folder("photos", root=folder, **options)
    (folder / "photos" / "cat" / "worse.png").write_text("no image")
    with pytest.raises(DataError, match=r"and 1 other files.*on_error: skip"):
        image_folder("photos", size=4, root=folder)


@pytest.mark.parametrize("options", [{}, {"size": 4}, {"in_memory": False}, {"val": "photos2"}])
def test_unreadable_images_are_left_out_where_asked(folder, options):
    if "val" in options:
        shutil.copytree(folder / "photos", folder / "photos2")
        options = {**options, "duplicates": "allow"}
    whole = image_folder("photos", root=folder, **options)
    bytes_ = (folder / "photos" / "cat" / "01.png").read_bytes()
    (folder / "photos" / "cat" / "00bad.png").write_text("no image")
    (folder / "photos" / "dog" / "cut.png").write_bytes(bytes_[:60])
    data = image_folder("photos", root=folder, on_error="skip", **options)
    cut = options.get("in_memory", True)  # otherwise it is met while training
    lost = data.facts["unreadable"]
    assert set(lost) == {"cat/00bad.png", *(["dog/cut.png"] if cut else [])}
    assert lost["cat/00bad.png"] == "cannot be read as an image: unknown format"
    assert f"{len(lost)} sample" in " ".join(data.warnings)
    many = len(whole.train) + len(whole.val) + (0 if cut else 1)
    assert len(data.train) + len(data.val) == many
    if cut:
        assert torch.equal(data.val.x, whole.val.x)
        assert torch.equal(data.val.y, whole.val.y)
    assert whole.facts.get("unreadable") is None


def test_no_readable_image_at_all(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "1.png").write_text("no image")
    for options in ({}, {"size": 4}):
        with pytest.raises(DataError, match=r"1.png"):
            image_folder("all", root=tmp_path, on_error="skip", **options)


def test_sizes_that_differ(folder):
    _picture(50, (9, 4)).save(folder / "photos" / "dog" / "wide.png")
    with pytest.raises(DataError, match=r"has 4x6 and wide.png 4x9 \(height x width\). Set size"):
        image_folder("photos", root=folder)
    assert image_folder("photos", size=4, root=folder).input_shape == (3, 4, 4)


def test_turned_png_is_noticed(folder):
    """Its mark is only seen when the file is decoded."""
    exif = Image.Exif()
    exif[0x0112] = 6
    _picture(70).save(folder / "photos" / "dog" / "zz.png", exif=exif)
    with pytest.raises(DataError, match=r"has 4x6 and zz.png 6x4"):
        image_folder("photos", root=folder)
    data = image_folder("photos", in_memory=False, root=folder)
    with pytest.raises(DataError, match=r"the first has 4x6 and zz.png 6x4"):
        _read_all(data)


def test_refusals(folder):
    for options, message in (
        ({"path": "photo"}, "no folder at .*photo .*that folder has 'photos'"),
        ({"size": 0}, "size must be one or two numbers"),
        ({"size": (1, 2, 3)}, "size must be one or two numbers"),
        ({"color": "cmyk"}, "'rgb' or 'grey'; got 'cmyk'"),
        ({"val": "held"}, "no folder at .*held"),
        ({"path": "photos/cat/01.png"}, "is not a folder"),
        ({"path": "photos/dog"}, "1 class folder"),
    ):
        with pytest.raises(DataError, match=message):
            image_folder(**{"path": "photos", "root": folder, **options})
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders with images"):
        image_folder("empty", root=folder)
    _picture(0).save(folder / "empty" / "loose.png")
    with pytest.raises(DataError, match="the 1 images in it belong into one folder per class"):
        image_folder("empty", root=folder)
    (folder / "photos" / "cow").mkdir()
    with pytest.raises(DataError, match=r"class folder .*cow has no images"):
        image_folder("photos", root=folder)


def test_class_with_one_image(folder):
    (folder / "photos" / "cow").mkdir()
    _picture(60).save(folder / "photos" / "cow" / "1.png")
    with pytest.raises(DataError, match="class 'cow' has one member only"):
        image_folder("photos", root=folder)
