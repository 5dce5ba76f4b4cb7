"""Tiny random encoder-decoders with their own tokenizers: base models that need no download.

`make_tiny_t5`, `make_tiny_bart` and `make_tiny_pegasus` put them into a model cache. They are deterministic.
"""

import json
from pathlib import Path

T5 = "test/tiny-t5"
BART = "test/tiny-bart"
PEGASUS = "test/tiny-pegasus"
_CORPUS = [
    "Answer with one word: positive, negative or neutral.",
    "What colour is number 0 1 2 3 4 5 6 7 8 9 very red green blue?",
    "one two three four five six seven eight nine ten yes no good bad happy sad",
]


def make_tiny_t5(cache: Path, *, width: int = 32) -> Path:
    """A T5 of two layers on each side, laid out as Flan-T5 is (gated GELU, untied head)."""
    from transformers import T5Config, T5ForConditionalGeneration

    def build(vocabulary: int):
        config = T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            decoder_start_token_id=0,
            tie_word_embeddings=False,
            initializer_factor=1.0,
        )
        return T5ForConditionalGeneration(config)

    return _make(cache / T5, make_t5_tokenizer(), build)


_OF_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "dropout": 0.0,
    "init_std": 0.3,
}
"""Sizes of BART, and of what has its layers."""


def make_tiny_bart(cache: Path) -> Path:
    """A BART of two layers on each side: learnt positions, and answers that begin with a token of their own."""
    from transformers import BartConfig, BartForConditionalGeneration

    def build(vocabulary: int):
        return BartForConditionalGeneration(BartConfig(vocab_size=vocabulary, **_OF_BART))

    return _make(cache / BART, make_bart_tokenizer(), build)


def make_tiny_pegasus(cache: Path) -> Path:
    """A Pegasus of two layers on each side: BART's layers, computed positions, and texts laid out as T5's."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    def build(vocabulary: int):
        return PegasusForConditionalGeneration(PegasusConfig(vocab_size=vocabulary, **_OF_BART))

    return _make(cache / PEGASUS, make_t5_tokenizer(), build)


def _make(folder: Path, tokenizer, build) -> Path:
    if (folder / "manifest.json").is_file():
        return folder
    import torch

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    build(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"model": "/".join(folder.parts[-2:])}))
    return folder


def make_t5_tokenizer():
    """A unigram tokenizer like T5's: `</s>` after every text, nothing before it.

    Training it would give the same pieces each time, but in another order and with other last digits: the model would
    differ from run to run, and learn better or worse.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator(_CORPUS, trainer)
    vocabulary = [(piece, round(score, 3)) for piece, score in json.loads(inner.to_str())["model"]["vocab"]]
    pieces = sorted(vocabulary[len(special) :], key=lambda one: (-one[1], one[0]))
    return T5Tokenizer(vocab=vocabulary[: len(special)] + pieces, extra_ids=0)


def make_bart_tokenizer():
    """A byte-level BPE tokenizer like BART's: `<s>` before and `</s>` after every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(_CORPUS, trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
