"""Loads a tokenizer that behaves as its tokenizer.json, whatever class its config names. Loads no model.

Training tokenizes by that file alone (`data/tokenizer`). Some classes of transformers take only the vocabulary from it
and build the rest on their own: with Llama 2 spaces are then encoded differently, and a tuned model would get other
tokens at inference than in training.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetune_trainer.data.tokenizer.chat_tokenizer import is_encoder_decoder, tokenizer_from_files

_TEXTS = (" two  spaces", "don't: \n\n\t12345", "Éé e\u0301 \ufb01 \u2460 \uff21 你好 🙂")
_AROUND_SPECIAL = "x{0} y{0}\nz{0}[w]"
"""Words right after a special token, and separated by white space."""


def loaded(folder: Path, *, trust_remote_code: bool) -> Any:
    """The tokenizer in `folder`, which encodes texts as its tokenizer.json defines.

    A class that cannot read that file, such as T5Tokenizer with a BPE file, does not matter if the generic class can.

    Raises:
        TrainerError: ModelUnusable, a tokenizer file is broken.
        Exception: whatever transformers raises.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception:
        if not (_names_a_known_class(folder) and (folder / "tokenizer.json").is_file()):
            raise
        with suppress(Exception):  # the error of the named class is closer to the cause
            return PreTrainedTokenizerFast.from_pretrained(folder)
        raise
    return _matching_file(tokenizer, folder)


def _names_a_known_class(folder: Path) -> bool:
    """Whether it names a tokenizer class that is not part of the folder's own code."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get("tokenizer_class"), str) and "auto_map" not in config


def _matching_file(tokenizer: Any, folder: Path) -> Any:
    """The loaded tokenizer, or one of the generic class if it encodes texts differently from the file.

    Raises:
        TrainerError: ModelUnusable, a tokenizer file is broken.
    """
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast or not (folder / "tokenizer.json").is_file():
        return tokenizer
    if getattr(tokenizer, "is_fast", False) and _encodes_alike(tokenizer.backend_tokenizer, folder):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _encodes_alike(backend: Any, folder: Path) -> bool:
    from_files, special_tokens = tokenizer_from_files(folder)
    around = is_encoder_decoder(folder)  # only there does the tokenizer itself add special tokens
    texts = [*_TEXTS, *(_AROUND_SPECIAL.format(token) for token in special_tokens.values())]
    both = [[one.encode(text, add_special_tokens=around).ids for text in texts] for one in (from_files, backend)]
    return both[0] == both[1] and all(from_files.decode(ids) == backend.decode(ids) for ids in both[0])
