"""A tokenizer that goes by its tokenizer.json, whatever class its configuration names. It loads no model.

Training tokenises by that file alone (`data/chat_tokenizer.py`). Some classes of transformers take no more than the
vocabulary out of it and build the rest in a way of their own: Llama 2's spaces then stand elsewhere, and a tuned model
would be asked with other tokens than it has learnt.
"""

from pathlib import Path
from typing import Any

from finetune_trainer.data.chat_tokenizer import filed_tokens, is_encoder_decoder

_TEXTS = (" two  spaces", "don't: \n\n\t12345", "Éé e\u0301 \ufb01 \u2460 \uff21 你好 🙂")
_AROUND = "x{0} y{0}\nz{0}[w]"
"""Words right behind a special token, and with white space between."""


def by_its_file(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer that was loaded from `folder`, or one of the general class where its own reads the file otherwise.

    Raises:
        TrainerError: ModelUnusable, a file of the tokenizer is broken.
    """
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast or not (folder / "tokenizer.json").is_file():
        return tokenizer
    if getattr(tokenizer, "is_fast", False) and _reads_alike(tokenizer.backend_tokenizer, folder):
        return tokenizer
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _reads_alike(backend: Any, folder: Path) -> bool:
    filed, special_tokens = filed_tokens(folder)
    around = is_encoder_decoder(folder)  # only its texts get special tokens from the tokenizer itself
    texts = [*_TEXTS, *(_AROUND.format(token) for token in special_tokens.values())]
    both = [[one.encode(text, add_special_tokens=around).ids for text in texts] for one in (filed, backend)]
    return both[0] == both[1] and all(filed.decode(ids) == backend.decode(ids) for ids in both[0])
