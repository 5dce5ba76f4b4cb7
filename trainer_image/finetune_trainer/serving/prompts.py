"""Turns conversations and texts into tokens, the same as in training.

Does not enforce limits: the caller compares the length with the context.
"""

from collections.abc import Sequence
from typing import Any

from finetune_trainer.data.rows import Turn
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer


class Prompts:
    """Tokenises with the served model's tokenizer and chat template.

    A model without a chat template gets the plain one that training uses for it: turns on separate lines. An
    encoder-decoder (`decoder_start` is its decoder's first token) gets them as one text.

    Raises:
        TrainerError: ModelUnusable, the chat template is invalid.
    """

    def __init__(self, tokenizer: Any, *, decoder_start: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._chat = ChatTokenizer.from_transformers(tokenizer, decoder_start=decoder_start)

    def chat(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Tokens of the conversation, up to the start of the assistant's answer.

        Raises:
            TemplateRefusedError: the template rejects these roles or their order.
        """
        return tuple(self._chat.prompt_ids(turns))

    @property
    def opening(self) -> tuple[int, ...]:
        """What the template inserts before an answer, after the result of `chat`."""
        return tuple(self._chat.opening)

    def text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text to continue, with the special tokens that its tokenizer puts first."""
        return tuple(self._tokenizer.encode(text))

    def token_text(self, token: int) -> str:
        """The text of one token by itself."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def warm_up(self) -> tuple[int, ...]:
        """A few tokens that any model accepts."""
        return self.text("Hello") or (0,)
