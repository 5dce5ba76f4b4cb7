"""Values in a base model's generation_config.json that cannot be used for generation, or that transformers refuses.

The latter as in GenerationConfig.validate, but without transformers, which `check` does not have. We do not generate by
this file, but everyone who loads the model reads it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from finetune_trainer.models.validation.config_values import Fields, Invalid, is_number, is_whole, shown, wrong_tokens

CACHES = frozenset({
    "dynamic", "hybrid", "hybrid_chunked", "offloaded", "offloaded_hybrid", "offloaded_hybrid_chunked",
    "offloaded_static", "paged", "quantized", "sliding_window", "static",
})  # fmt: skip
"""Types of key-value caches, as named by transformers."""

_ARGUMENTS = (
    "assistant_model", "logits_processor", "negative_prompt_attention_mask", "negative_prompt_ids",
    "prefix_allowed_tokens_fn", "stopping_criteria", "streamer", "synced_gpus",
)  # fmt: skip
"""Arguments of generate() that are not part of a config."""

_SAMPLING: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("number from 0 on", lambda value: is_number(value) and value >= 0),
    "top_p": ("number above 0, up to 1", lambda value: is_number(value) and 0 < value <= 1),
    "top_k": ("whole number", lambda value: is_number(value) and value == int(value)),
}


def wrong_sampling(fields: Fields) -> Iterator[Invalid]:
    """Invalid sampling parameters in a model's recommendation; 0 disables top_p and top_k."""
    for name, (meant, is_right) in _SAMPLING.items():
        value = fields.get(name)
        if (value or name == "temperature") and value is not None and not is_right(value):
            yield Invalid(name, f"is {str(value)[:40]!r}, not a {meant}")


def wrong_generation(fields: Fields) -> Iterator[Invalid]:
    """Invalid values; null is the same as no value, except for arguments of generate()."""
    yield from wrong_tokens(fields)
    yield from wrong_sampling(fields)
    given = {name: value for name, value in fields.items() if value is not None}
    most = given.get("max_new_tokens", 1)
    if not (is_whole(most) and most > 0):
        yield Invalid("max_new_tokens", f"is {shown(most)}, not a whole number from 1 on")
    if not isinstance(stops := given.get("early_stopping", "never"), bool) and stops != "never":
        yield Invalid("early_stopping", f'is {shown(stops)}, and none of true, false, "never"')
    weight = given.get("assistant_ensemble_weight", 0.5)
    if not (isinstance(weight, float) and 0 < weight < 1):
        yield Invalid("assistant_ensemble_weight", f"is {shown(weight)}, not a number between 0 and 1")
    cache = given.get("cache_implementation", "dynamic")
    if not (isinstance(cache, str) and cache in CACHES):
        yield Invalid("cache_implementation", f"is {shown(cache)}, and none of {', '.join(sorted(CACHES))}")
    if "compile_config" in given:
        yield Invalid("compile_config", "is set, and cannot stand in a file; remove it")
    if given.get("watermarking_config", {}) != {}:
        yield from _wrong_watermark(given["watermarking_config"])
    yield from (Invalid(name, "is an argument of generate(), and nothing that a file says; remove it")
                for name in _ARGUMENTS if name in fields)  # fmt: skip
    if isinstance(pads := given.get("pad_token_id"), list):
        yield Invalid("pad_token_id", f"is {shown(pads)}, and one token pads")
    yield from _wrong_combinations(given)


def _wrong_watermark(watermark: Any) -> Iterator[Invalid]:
    known = {"bias", "context_width", "greenlist_ratio", "hashing_key", "seeding_scheme"}
    if not (isinstance(watermark, dict) and (watermark.keys() <= known or "ngram_len" in watermark)):
        yield Invalid("watermarking_config", f"is {shown(watermark)}, not an object with {', '.join(sorted(known))}")


def _wrong_combinations(given: Fields) -> Iterator[Invalid]:
    answers, beams = given.get("num_return_sequences", 1), given.get("num_beams", 1)
    if not is_whole(answers):
        yield Invalid("num_return_sequences", f"is {shown(answers)}, not a whole number")
    elif answers > 1 and is_whole(beams) and (answers > beams if beams != 1 else not given.get("do_sample")):
        few = f"of {beams} beams (num_beams) come no more answers" if beams != 1 else "without do_sample there is one"
        yield Invalid("num_return_sequences", f"is {answers}, and {few}")
    if not isinstance(never := given.get("suppress_tokens", []), list):
        yield Invalid("suppress_tokens", f"is {shown(never)}, not a list of tokens' numbers")
        return
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = given.get(name, [])
        forced = forced if isinstance(forced, list) else [forced]
        if forced and all(token in never for token in forced):
            yield Invalid(name, f"is {shown(given[name])}, which suppress_tokens forbids")
