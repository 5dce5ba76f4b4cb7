"""Conversations and texts become tokens, the same ones that training made of them.

It knows no limits: whoever asks compares the length with the context.
"""

from collections.abc import Sequence
from typing import Any

from finetune_trainer.data.rows import Turn
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer


class Prompts:
    """Tokenises with the served model's tokenizer and chat template.

    A model without a chat template gets the plain one that training uses for it: turns one under the other. An
    encoder-decoder (`decoder_start` is its decoder's first token) gets them as one text.

    Raises:
        TrainerError: ModelUnusable, the chat template is no template.
    """

    def __init__(self, tokenizer: Any, *, decoder_start: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._chat = ChatTokenizer.from_transformers(tokenizer, decoder_start=decoder_start)

    def chat(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Tokens of the conversation, up to where the assistant's answer starts.

        Raises:
            TemplateRefusedError: the template does not take these roles in this order.
        """
        return tuple(self._chat.prompt_ids(turns))

    @property
    def opening(self) -> tuple[int, ...]:
        """What the template writes before an answer by itself, behind what `chat` gives."""
        return tuple(self._chat.opening)

    def text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text that the model goes on with, with the special tokens that its tokenizer puts first."""
        return tuple(self._tokenizer.encode(text))

    def token_text(self, token: int) -> str:
        """The text of one token by itself."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def warm_up(self) -> tuple[int, ...]:
        """A few tokens that any model can start with."""
        return self.text("Hello") or (0,)
