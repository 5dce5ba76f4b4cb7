"""Whether a job's rows contain tokens for which the base model has no embedding, by its config, without loading it.

Mostly the vocabulary sizes of model and tokenizer rule that out, and no row is read.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from finetune_api.job import FineTuneJobSpec
from finetune_api.verdict import SPLITS
from finetune_trainer.data import ChatTokenizer, Row, encode, encode_pairs, load_rows
from finetune_trainer.models.base_refusals import require_known
from finetune_trainer.models.weight_files import UNREADABLE


def require(
    spec: FineTuneJobSpec, folder: Path, tokenizer: ChatTokenizer, *, allow_local: bool, air_gapped: bool
) -> None:
    """Refuse what training would refuse once the data is tokenized. Meant for a valid dataset.

    Raises:
        TrainerError: ModelUnusable.
    """
    known = _vocabulary(folder)
    if known is None or tokenizer.backend.get_vocab_size(with_added_tokens=True) <= known:
        return
    for split in SPLITS:
        rows = load_rows(spec.data, split, allow_local=allow_local, air_gapped=air_gapped)
        require_known(folder, max(_largest_ids(spec, rows, tokenizer), default=-1), known)


def _largest_ids(spec: FineTuneJobSpec, rows: Iterator[Row], tokenizer: ChatTokenizer) -> Iterator[int]:
    length = tokenizer.row_limit(spec.hyperparameters)
    if spec.preference is None:
        yield from (max(row.input_ids) for row in encode(rows, tokenizer, length))
        return
    for pair in encode_pairs(rows, tokenizer, length):
        yield max(*pair.chosen.input_ids, *pair.rejected.input_ids)


def _vocabulary(folder: Path) -> int | None:
    """The model's vocabulary size, if its config has one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = (config.get("text_config") or config).get("vocab_size")
    except UNREADABLE:
        return None
    return size if isinstance(size, int) else None
