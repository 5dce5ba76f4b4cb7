"""Datasets: reading, validation and tokenization. Imports neither torch nor transformers.

The public interface, in the order in which a run uses it::

    verdict = check_dataset(spec, tokenizer=tokenizer, allow_local=False, air_gapped=True)   # a DatasetVerdict
    require_valid(verdict)                                                                   # or TrainerError
    rows = load_rows(spec.data, "train", expected_sha256=verdict.train.sha256)               # Iterator[Row]
    tally = Tally()
    for example in encode(rows, tokenizer, max_length=1024, tally=tally):                    # Iterator[Encoded]
        torch.frombuffer(example.input_ids, dtype=torch.int32), example.labels               # IGNORED = no loss

`tokenizer` is a ChatTokenizer: `ChatTokenizer.from_folder(model_folder)` without transformers, or
`ChatTokenizer.from_transformers(tokenizer)` from a loaded one. `tokenizer.template` is the chat template in use. A base
model without one gets a plain template (`has_own_template` is False), which must be saved with the tuned model.
For evaluation, `row.completion` is the reference and `tokenizer.prompt_ids(row.prompt)` the input of the model.

    read ─▶ files, file_names                 file → blocks and records, streamed; checks of file names
    columns ─▶ rows, layouts, blocks          record → training row, by its columns
      prompts, turns, pairs                   texts, messages, preference pairs
      conversation_blocks                     fast path for many valid conversations at once
    verdict ─▶ split_check                    checks every row and reports what is wrong:
      fingerprints, counting                  duplicates, token counts
      row_warnings ─▶ damaged_text            valid rows that look like a mistake; text damaged by an export
      fixes                                   how to fix the data: a command to copy
    tokenizer                                 conversation → text → token ids
    encode, row_limit                         rows → token ids and labels
      audit                                   the same, printed for people
    provider                                  a provider's requirements for rows, and the file that it receives
"""

from finetune_trainer.data.encode import IGNORED, Encoded, EncodedPair, Tally, cut_prompt, encode, encode_pairs
from finetune_trainer.data.read import SplitFile, load_rows
from finetune_trainer.data.rows import Position, Row, Turn
from finetune_trainer.data.tokenizer.chat_template import TemplateRefusedError
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.verdict import check_dataset, require_valid

__all__ = [
    "IGNORED",
    "ChatTokenizer",
    "Encoded",
    "EncodedPair",
    "Position",
    "Row",
    "SplitFile",
    "Tally",
    "TemplateRefusedError",
    "Turn",
    "check_dataset",
    "cut_prompt",
    "encode",
    "encode_pairs",
    "load_rows",
    "require_valid",
]
