"""Conversations as tokenized by Mistral's own library: `mistral_by_mistral_common.py FILE`, needs mistral-common.

This is not a dependency: it needs an older numpy, and changes the behaviour of transformers. Only the standard library
is imported at module level, so that tests can import the conversations.
"""

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

TEKKEN = "tekken_240911.json"
CONVERSATIONS: dict[str, list[tuple[str, str]]] = {
    "one question": [("user", "What colour is the sky?"), ("assistant", "Blue.")],
    "with system": [
        ("system", "Answer with one word."),
        ("user", "¿Qué color?  Zwei Leerzeichen,\nzwei Zeilen: 日本語 🙂"),
        ("assistant", "Azul"),
    ],
    "two questions": [
        ("user", "2 + 2 = ?"),
        ("assistant", "4"),
        ("user", "And <b>3</b> + 3?"),
        ("assistant", " 6, of course\n"),
    ],
}
"""Role and text of each turn, by a name for the conversation."""


def main(target: Path) -> None:
    """Write vocabulary, special tokens, chat template, and each conversation with its tokens and its prompt's."""
    from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.protocol.instruct.validator import ValidationMode
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    path = Path(str(files("mistral_common") / "data" / TEKKEN))
    whole, prompt = (MistralTokenizer.from_file(path, mode=ValidationMode[mode]) for mode in ("finetuning", "test"))

    def tokens(tokenizer: Any, turns: Any) -> list[int]:
        request = ChatCompletionRequest(messages=[{"role": role, "content": text} for role, text in turns])
        return list(tokenizer.encode_chat_completion(request).tokens)

    inner, content = whole.instruct_tokenizer.tokenizer, json.loads(path.read_text())
    special = inner.num_special_tokens
    figures = {
        "pattern": content["config"]["pattern"],
        "vocabulary": [one["token_bytes"] for one in content["vocab"][: inner.n_words - special]],
        "special": inner.vocab()[:special],
        "template": convert_tokenizer_to_chat_template(path),
        "conversations": [
            {"turns": turns, "tokens": tokens(whole, turns), "prompt": tokens(prompt, turns[:-1])}
            for turns in CONVERSATIONS.values()
        ],
    }
    target.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
