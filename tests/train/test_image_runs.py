"""Runs on folders of images, some of which cannot be read."""

import pytest
from PIL import Image

from brickyard.errors import DataError, RecipeError
from brickyard.train import train

RECIPE = {
    "model": {"name": "mlp", "hidden": [4]}, "loss": "cross_entropy", "batch_size": 10,
    "name": "try",
}  # fmt: skip


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_that_cannot_be_read_are_skipped_and_stand_on_the_page(tmp_path, in_memory):
    """In memory they are met beforehand, otherwise while training: a file that is cut off."""
    for i in range(40):
        place = tmp_path / "photos" / ("light" if i % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * i + 3).save(place / f"{i:02}.png")
    good = (place / "01.png").read_bytes()
    for name in ("02.png", "03.png"):
        (place / name).write_bytes(good[:50])
    given = {
        **RECIPE, "data": {"name": "image_folder", "path": str(tmp_path / "photos"),
        "color": "grey", "in_memory": in_memory}, "model": {"name": "mlp", "hidden": [4]},
        "budget": "1ep",
    }  # fmt: skip
    with pytest.raises((RecipeError, DataError), match=r"0[23].png cannot be read as an image"):
        train(given, out=tmp_path / "stops")
    run = train({**given, "on_error": "skip"}, out=tmp_path / "run").run
    assert len(run.summary()["unreadable"]) == 2
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "2 samples could not be read and skipped" in page
    assert "2 samples, skipped: " in page
    (place / "02.png").write_bytes(good)
    (place / "03.png").unlink()
    run = train({**given, "on_error": "skip"}, out=tmp_path / "fine").run
    assert run.summary()["unreadable"] == {}
    assert "could not be read" not in (run.path / "report.html").read_text(encoding="utf-8")
