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

    source, compression, utf16                the bytes of a URI, counted and hashed on the way
    beside                                    a large file, hashed by a second thread
    formats, file_names                       which format they have; what the name of a file tells
    read                                      a file → blocks, records and rows, streamed:
      json_lines, json_array, csv_rows        formats, row by row
      parquet ─▶ lines
      blocks, array_blocks, csv_blocks        and many rows at once, where nothing is wrong with any
      conversation_blocks
      repeated                                names that stand twice in one object
    columns ─▶ rows, layouts                  a record → a row that can be learnt from, by its columns
      prompts, turns, pairs                   texts, messages, two answers to one prompt
      column_names                            columns that are not there, and which one was meant
    verdict ─▶ split_check                    every row looked at, and what is wrong told:
      fingerprints, counting                  rows alike, tokens
      doubtful ─▶ garbled                     rows not meant so, text that another program garbled
      mending, mending_rows, mending_messages what mends rows, as a command (jq)
      mending_json, csv_anew                  the same of text that is nearly JSON, and of tables
      exports, wrapped, marked_text           rows in another program's form, and the command that takes them out
      parted ─▶ jq                            what was asked and its answer, in two places of a row
    chat_tokenizer ─▶ tokenizer_config        conversation → text → token ids
      chat_template, template_file, frames    the chat template
    encode, row_limit ─▶ shared_parts         rows → token ids and labels
      audit                                   the same for people
    provider_rules, provider_rows             what a provider asks of rows
      provider_file ─▶ token_estimate         the file that it gets
"""

from finetune_trainer.data.chat_template import TemplateRefusedError
from finetune_trainer.data.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.encode import IGNORED, Encoded, EncodedPair, Tally, cut_prompt, encode, encode_pairs
from finetune_trainer.data.read import SplitFile, load_rows
from finetune_trainer.data.rows import Position, Row, Turn
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
