"""Datasets: read, checked, and turned into token ids. Imports no torch and no transformers.

What the rest of the trainer uses, in the order in which a run uses it::

    verdict = check_dataset(spec, tokenizer=tokenizer, allow_local=False, air_gapped=True)   # a DatasetVerdict
    require_valid(verdict)                                                                   # or TrainerError
    rows = load_rows(spec.data, "train", expected_sha256=verdict.train.sha256)               # Iterator[Row]
    tally = Tally()
    for example in encode(rows, tokenizer, max_length=1024, tally=tally):                    # Iterator[Encoded]
        torch.frombuffer(example.input_ids, dtype=torch.int32), example.labels               # IGNORED = no loss

`tokenizer` is a ChatTokenizer: `ChatTokenizer.from_folder(model_folder)` without transformers, or
`ChatTokenizer.from_transformers(tokenizer)` from the loaded one. `tokenizer.template` is the chat template in use; a
base model without one gets a plain one (`has_own_template` is False), which has to be saved with the tuned model.
`row.prompt` and `row.completion` are for evaluation: `tokenizer.prompt_ids(row.prompt)` is what the model is asked.

    read ─▶ files, file_names                 a file → blocks and records, streamed; what its name tells
    columns ─▶ rows, layouts, blocks          a record → a row that can be learnt from, by its columns
      prompts, turns, pairs                   texts, messages, two answers to one prompt
      conversation_blocks                     many conversations at once, where nothing is wrong with any
    verdict ─▶ split_check                    every row is looked at, and what is wrong is told:
      fingerprints, counting                  rows alike, tokens
      row_warnings ─▶ damaged_text            rows that were hardly meant so; text that a program damaged
      fixes                                   what to do about it: a command to copy
    tokenizer                                 conversation → text → token ids
    encode, row_limit                         rows → token ids and labels
      audit                                   the same for people
    provider                                  what a provider asks of rows, and the file that it gets
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
