"""Which model types can be tuned, evaluated and served, by their config alone. Loads nothing."""

import re
from collections.abc import Mapping
from typing import Any

ENCODER_DECODERS = frozenset({"bart", "blenderbot", "longt5", "mt5", "mvp", "pegasus", "pegasus_x", "t5", "umt5"})
"""Encoder-decoders that can be tuned and served: plain text in, plain text out."""

CAUSAL = frozenset({
    "afmoe", "apertus", "arcee", "aria_text", "axk1", "axk2", "bailing_hybrid", "bamba", "bart", "beam", "bert",
    "bert-generation", "big_bird", "bigbird_pegasus", "biogpt", "bitnet", "blenderbot", "blenderbot-small", "bloom",
    "blt", "camembert", "codegen", "cohere", "cohere2", "cohere2_moe", "cohere_compass_text", "cpmant", "ctrl", "cwm",
    "data2vec-text", "dbrx", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "diffllama", "doge",
    "dots1", "dots3_note", "dots3_note_text", "electra", "emu3", "ernie", "ernie4_5", "ernie4_5_moe", "exaone4",
    "exaone_moe", "falcon", "falcon_h1", "falcon_mamba", "flex_olmo", "flint", "fuyu", "gemma", "gemma2", "gemma3",
    "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_assistant", "gemma4_text", "gemma4_unified",
    "gemma4_unified_assistant", "gemma4_unified_text", "git", "glm", "glm4", "glm4_moe", "glm4_moe_lite",
    "glm_moe_dsa", "got_ocr2", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese",
    "gpt_oss", "gptj", "granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoehybrid",
    "granitemoeshared", "helium", "hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hy_v4", "hyperclovax",
    "inkling2_text", "inkling_text", "internlm3", "iquestcoder", "jais2", "jamba", "jetmoe", "kimi_linear",
    "kolibri1", "laguna", "lfm2", "lfm2_moe", "lfm3", "llama", "llama4", "llama4_text", "longcat_flash", "mamba",
    "mamba2", "marian", "mbart", "megatron-bert", "mellum", "mimo_v2_flash", "minicpm3", "minimax", "minimax_m2",
    "minimax_m3_vl_text", "ministral", "ministral3", "mistral", "mixtral", "mllama", "modernbert-decoder", "moshi",
    "moss_transcribe_diarize", "mpt", "musicgen", "musicgen_melody", "mvp", "nanochat", "nemotron", "nemotron_h",
    "olmo", "olmo2", "olmo3", "olmo_hybrid", "olmoe", "openai-gpt", "opt", "pegasus", "persimmon", "phi", "phi3",
    "phi4_multimodal", "phimoe", "plbart", "prophetnet", "qwen2", "qwen2_moe", "qwen3", "qwen3_5", "qwen3_5_moe",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next", "qwen4_exp", "qwen4_exp_text", "recurrent_gemma",
    "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "rwkv", "seed_oss", "smollm3",
    "solar_open", "stablelm", "starcoder2", "trocr", "vaultgemma", "whisper", "xglm", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xlnet", "xlstm", "xmod", "youtu", "zamba", "zamba2", "zaya",
})  # fmt: skip
"""Types for which the installed release of transformers has a causal language model: a test compares them."""

KNOWN = frozenset({
    "apertus", "arcee", "bart", "blenderbot", "bloom", "codegen", "cohere", "cohere2", "cwm", "exaone4", "falcon",
    "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite",
    "helium", "llama", "longt5", "mistral", "mpt", "mt5", "olmo", "olmo2", "olmo3", "opt",
    "pegasus", "persimmon", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2", "t5",
    "umt5", "xglm",
})  # fmt: skip
"""Types whose fields and tensors are known: transformers renames none of them, and they have no experts."""

LLAMAS = frozenset({
    "apertus", "arcee", "cohere", "cohere2", "cwm", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4",
    "granite", "llama", "mistral", "olmo", "olmo2", "olmo3", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3",
    "starcoder2",
})  # fmt: skip
"""Types with Llama's names of layers and fields, some of which fuse several layers into one."""
T5S = frozenset({"longt5", "mt5", "t5", "umt5"})
BARTS = frozenset({"bart", "blenderbot", "pegasus"})

_TRANSLATORS = frozenset({"m2m_100", "mbart", "nllb-moe", "plbart"})
"""Types whose texts begin or end with a language token, a different one for source and target."""

_TWO_TOKENIZERS = frozenset({"fsmt", "marian"})
"""Types that translate between two languages, with a separate tokenizer for each."""

_NO_KNOWN_CACHE = frozenset({"gemma4_assistant", "gemma4_unified_assistant", "openai-gpt", "rwkv"})
"""Causal models without a cache of past tokens, or with one under an unknown name."""

_CHUNKED = frozenset({"reformer"})
"""Types that train only on rows whose length is a multiple of their chunk length."""

OTHER_TASKS = re.compile(
    r"\w+(?:For(?:SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|NextSentencePrediction"
    r"|MaskedLM|FeatureExtraction|ImageClassification|AudioClassification)|(?<!LMHead)(?<!MT)(?<!EncoderDecoder)Model)"
)
"""Classes for other tasks than generating text; a test compares them with transformers' own."""

_LANGUAGES_IN_PROMPTS = (
    "Name a T5, an mT5 or a causal model, whose prompts say what to do (translate German to English: ...), and apply "
    "the job under a new name."
)


def why_not(config: Any, *, own_code: bool) -> tuple[str, str | None] | None:
    """Why a model with this config cannot be used, with a next step if there is a specific one; None if it can.

    `own_code`: the model's own code may be run.
    """
    named = ", ".join(config.architectures or [config.model_type])
    why, step = _type_refusal(config.model_type, named, encoder_decoder=config.is_encoder_decoder)
    brings_its_own = own_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if why is None and not brings_its_own and not _is_language_model(config):
        why = f"{named} is not a language model that answers"
    elif why is None and not brings_its_own and not _is_supported(config):
        why = f"transformers has no language model of the kind {config.model_type}"
    return None if why is None else (why, step)


def why_not_by(fields: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The same for the fields of config.json, as far as it is certain without transformers."""
    classes = fields.get("architectures") or []
    named = ", ".join(classes or [fields["model_type"]])
    why, step = _type_refusal(fields["model_type"], named, encoder_decoder=fields.get("is_encoder_decoder") is True)
    if why is None and classes and all(map(OTHER_TASKS.fullmatch, classes)):
        why = f"{named} is not a language model that answers"
    elif why is None and fields["model_type"] not in CAUSAL | ENCODER_DECODERS:
        why = f"transformers has no language model of the kind {fields['model_type']}"
    return None if why is None else (why, step)


def context_of(text_config: Any) -> int | None:
    """The model's context length according to its config; None if it names none, as XLNet does by -1."""
    known = getattr(text_config, "max_position_embeddings", None)
    return known if isinstance(known, int) and known > 0 else None


def _type_refusal(kind: str, named: str, *, encoder_decoder: bool) -> tuple[str | None, str | None]:
    why = None
    if kind in _TRANSLATORS:
        why = f"{named} is told the languages of both texts by tokens beside them, and rows name no languages"
        return why, _LANGUAGES_IN_PROMPTS
    if kind in _TWO_TOKENIZERS:
        why = f"{named} has a tokenizer for each of its two languages, and one tokenizer.json cannot hold both"
        return why, _LANGUAGES_IN_PROMPTS
    if encoder_decoder and kind not in ENCODER_DECODERS:
        why = f"{named} is an encoder-decoder; of these only {', '.join(sorted(ENCODER_DECODERS))} can be used"
    elif kind in _NO_KNOWN_CACHE:
        why = f"{named} keeps its state of a text in a way of its own, or none: it could be neither measured nor served"
    elif kind in _CHUNKED:
        why = f"{named} learns only rows whose length is a multiple of that of its chunks"
    return why, None


def _is_supported(config: Any) -> bool:
    """Whether transformers has a language model of this type; the config may name no architecture."""
    from transformers.models.auto import modeling_auto

    known = (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        if config.is_encoder_decoder
        else modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    )
    return type(config) in known


def _is_language_model(config: Any) -> bool:
    """Whether the weights are those of a language model, if the config names their architecture."""
    from transformers.models.auto import modeling_auto

    known = (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        if config.is_encoder_decoder
        else modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    )
    usable = {name for names in known.values() for name in _names(names)}
    return not config.architectures or bool(usable.intersection(config.architectures))


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
