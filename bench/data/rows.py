"""Made-up rows of 235 bytes as JSON Lines, the same rows in other formats, and a tokenizer for them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMATS = ("jsonl", "csv", "parquet")
LINE_BYTES = 235
_WORDS = 20_000
_BATCH = 100_000

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def words(seed: int) -> list[str]:
    """A vocabulary whose words are as long as English ones."""
    chance = random.Random(seed)
    letters = "etaoinshrdlcumwfgypbvk"
    weights = range(len(letters), 0, -1)
    lengths = chance.choices(range(1, 13), [3, 16, 20, 16, 11, 9, 8, 6, 4, 3, 2, 2], k=_WORDS)
    return ["".join(chance.choices(letters, weights, k=length)) for length in lengths]


def rows(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows of prompt and completion, LINE_BYTES bytes each as a line of JSON, all different."""
    chance, known = random.Random(seed), words(seed)
    weights = [1 / (rank + 2) for rank in range(_WORDS)]
    total, cumulative = 0.0, []
    for weight in weights:
        total += weight
        cumulative.append(total)
    for number in range(count):
        text = " ".join(chance.choices(known, cum_weights=cumulative, k=48))
        row = {"prompt": f"{number} {text[:140]}", "completion": text[140:170]}
        spare = LINE_BYTES - len(json.dumps(row)) - 1
        row["completion"] = (row["completion"] + text[170:])[: len(row["completion"]) + spare]
        yield row


def write(folder: Path, count: int) -> dict[str, Path]:
    """Write a file in each format; existing ones are kept."""
    paths = {kind: folder / f"rows-{count}.{kind}" for kind in FORMATS}
    if not all(path.is_file() for path in paths.values()):
        _write_all(paths, count)
    return paths


def _write_all(paths: dict[str, Path], count: int) -> None:
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    with (
        paths["jsonl"].open("w") as lines,
        paths["csv"].open("w", newline="") as table,
        pq.ParquetWriter(paths["parquet"], schema) as columns,
    ):
        sheet = csv.DictWriter(table, schema.names)
        sheet.writeheader()
        for start in range(0, count, _BATCH):
            part = list(rows(min(_BATCH, count - start), seed=start))
            texts = [json.dumps(row) for row in part]
            lines.writelines(f"{text}\n" for text in texts)
            sheet.writerows(part)
            columns.write_table(pa.Table.from_pylist(part, schema))


def write_model(cache: Path, name: str) -> Path:
    """A folder of a model cache with a byte-level BPE of 16,384 tokens, trained on such rows, and a chat template."""
    folder = cache / name
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _train().save(str(folder / "tokenizer.json"))
        about: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
            "chat_template": TEMPLATE,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return folder


def _train() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=16_384, special_tokens=specials, initial_alphabet=alphabet)
    made.train_from_iterator((" ".join(row.values()) for row in rows(20_000)), trainer)
    return made
