"""Values of a base model's generation_config.json with which transformers refuses the whole file.

By GenerationConfig.validate, and without transformers: `check` has none.
Models are asked otherwise than the file says, but whoever loads one reads it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_trainer.models.config_words import Wrong, is_whole, shown

CACHES = frozenset({
    "dynamic", "hybrid", "hybrid_chunked", "offloaded", "offloaded_hybrid", "offloaded_hybrid_chunked",
    "offloaded_static", "paged", "quantized", "sliding_window", "static",
})  # fmt: skip
"""Where keys and values may be kept, as transformers names the places."""

_ARGUMENTS = (
    "assistant_model", "logits_processor", "negative_prompt_attention_mask", "negative_prompt_ids",
    "prefix_allowed_tokens_fn", "stopping_criteria", "streamer", "synced_gpus",
)  # fmt: skip
"""What is given to generate() itself."""


def wrong_generation(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    """What nobody can generate by; null is as if the line were not there, but for arguments of generate()."""
    given = {name: value for name, value in fields.items() if value is not None}
    most = given.get("max_new_tokens", 1)
    if not (is_whole(most) and most > 0):
        yield Wrong("max_new_tokens", f"is {shown(most)}, and no whole number from 1 on")
    if not isinstance(stops := given.get("early_stopping", "never"), bool) and stops != "never":
        yield Wrong("early_stopping", f'is {shown(stops)}, and none of true, false, "never"')
    weight = given.get("assistant_ensemble_weight", 0.5)
    if not (isinstance(weight, float) and 0 < weight < 1):
        yield Wrong("assistant_ensemble_weight", f"is {shown(weight)}, and no number between 0 and 1")
    cache = given.get("cache_implementation", "dynamic")
    if not (isinstance(cache, str) and cache in CACHES):
        yield Wrong("cache_implementation", f"is {shown(cache)}, and none of {', '.join(sorted(CACHES))}")
    if "compile_config" in given:
        yield Wrong("compile_config", "is set, and cannot stand in a file; remove it")
    if given.get("watermarking_config", {}) != {}:
        yield from _wrong_watermark(given["watermarking_config"])
    yield from (Wrong(name, "is an argument of generate(), and nothing that a file says; remove it")
                for name in _ARGUMENTS if name in fields)  # fmt: skip
    if isinstance(pads := given.get("pad_token_id"), list):
        yield Wrong("pad_token_id", f"is {shown(pads)}, and one token pads")
    yield from _wrong_together(given)


def _wrong_watermark(said: Any) -> Iterator[Wrong]:
    known = {"bias", "context_width", "greenlist_ratio", "hashing_key", "seeding_scheme"}
    if not (isinstance(said, dict) and (said.keys() <= known or "ngram_len" in said)):
        yield Wrong("watermarking_config", f"is {shown(said)}, and no object with {', '.join(sorted(known))}")


def _wrong_together(given: Mapping[str, Any]) -> Iterator[Wrong]:
    answers, beams = given.get("num_return_sequences", 1), given.get("num_beams", 1)
    if not is_whole(answers):
        yield Wrong("num_return_sequences", f"is {shown(answers)}, and no whole number")
    elif answers > 1 and is_whole(beams) and (answers > beams if beams != 1 else not given.get("do_sample")):
        few = f"of {beams} beams (num_beams) come no more answers" if beams != 1 else "without do_sample there is one"
        yield Wrong("num_return_sequences", f"is {answers}, and {few}")
    if not isinstance(never := given.get("suppress_tokens", []), list):
        yield Wrong("suppress_tokens", f"is {shown(never)}, and no list of tokens' numbers")
        return
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = given.get(name, [])
        forced = forced if isinstance(forced, list) else [forced]
        if forced and all(token in never for token in forced):
            yield Wrong(name, f"is {shown(given[name])}, which suppress_tokens forbids")
