"""The texts of the quickstart's package, split in half: one half for training, the other for the test set."""

import json
import runpy
from hashlib import sha256
from pathlib import Path

from demo.quickstart import FOLDER

SETS = {
    "tweets": ("hutto_ICWSM_2014/tweets_GroundTruth.txt", "tweet"),
    "product reviews": ("hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt", "review"),
}
"""File of each set, and the word for one of its texts."""
LABELS = ("positive", "negative", "neutral")
VALIDATION_ROWS = 64

Row = dict[str, str]


def rows(downloads: Path, name: str, seed: int) -> list[Row]:
    """All texts of a set as rows, without duplicates, in an order determined by seed and text."""
    prepare = runpy.run_path(str(FOLDER / "prepare.py"))
    file, thing = SETS[name]
    sdist = prepare["one"](downloads, "vader[Ss]entiment-*.tar.gz")
    rated = {text.strip(): rating for rating, text in prepare["rated_texts"](sdist, file) if text.strip()}
    order = sorted(rated, key=lambda text: sha256(f"{seed}:{text}".encode()).digest())
    system = prepare["SYSTEM"].replace("tweet", thing)
    return [{"system": system, "prompt": text, "completion": prepare["label"](rated[text])} for text in order]


def write_halves(all_rows: list[Row], folder: Path, at_most: dict[str, int | None]) -> dict[str, int]:
    """Write train, validation (a part of the first half) and test; returns the number of rows of each.

    Args:
        all_rows: in order.
        folder: for the files of the splits.
        at_most: limits of rows for train and test.
    """
    half = len(all_rows) // 2
    splits = {
        "validation": all_rows[:VALIDATION_ROWS],
        "train": all_rows[VALIDATION_ROWS:half][: at_most["train"]],
        "test": all_rows[half:][: at_most["test"]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return {split: len(part) for split, part in splits.items()}
