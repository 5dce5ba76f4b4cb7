"""A tiny random Llama with its own tokenizer and a chat template: a base model that needs no download.

`python -m tests.assets.tiny_model DIR` puts `test/tiny-llama` into the model cache DIR; tests call `make_tiny_model`.
It is deterministic: the same weights and the same tokenizer each time.
"""

import argparse
import json
from pathlib import Path

NAME = "test/tiny-llama"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CORPUS = [
    "system user assistant",
    "Answer with one word: positive, negative or neutral.",
    "What colour is the sky? The sky is blue. What colour is grass? Grass is green.",
    "one two three four five six seven eight nine ten yes no good bad happy sad",
]


def make_tiny_model(cache: Path, name: str = NAME, *, width: int = 32, layers: int = 2) -> Path:
    """Write the model to `cache/name` unless it exists, and return that folder."""
    folder = cache / name
    if (folder / "manifest.json").is_file():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.3,  # the default of 0.02 is so small at this width that adapters could not learn anything
    )
    folder.mkdir(parents=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"model": name}))
    return folder


def make_tiny_tokenizer():
    """A byte-level BPE tokenizer of about 400 tokens; pad is eos, as SmolLM2 has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("cache", type=Path, help="folder of the model cache")
    print(make_tiny_model(flags.parse_args().cache))
