"""Loads a folder as a model that answers: tokenizer, weights in a suitable dtype, merged adapter, engine.

Reads only safetensors and downloads nothing; a model's own code runs only if allowed.
"""

import json
import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from finetune_api.reasons import Reason
from finetune_trainer.computing import four_bit
from finetune_trainer.computing.limits import cpu_threads, free_memory
from finetune_trainer.errors import TrainerError, is_short_of_device_memory, is_short_of_memory
from finetune_trainer.models import tokenizer_file
from finetune_trainer.models.adapters import part_shared_weights
from finetune_trainer.models.base_refusals import PUT_THERE_AGAIN, is_of_the_device
from finetune_trainer.models.corrected import as_numbers, attention_of, in_one_dtype
from finetune_trainer.models.kinds import ENCODER_DECODERS, context_of
from finetune_trainer.models.loaded_weights import require_no_rest, require_whole
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.validation.generation_file import wrong_sampling
from finetune_trainer.serving import seq2seq_batch
from finetune_trainer.serving.artifact import Artifact
from finetune_trainer.serving.asks import Ask, Piece, Sampling
from finetune_trainer.serving.batch import Batch, cache_name, can_join
from finetune_trainer.serving.engine import Capacity, Engine, Generations
from finetune_trainer.serving.prompts import Prompts
from finetune_trainer.serving.served import Served

_log = logging.getLogger(__name__)
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_CACHE_SHARE = 0.4  # of the memory that is free after loading; a change of rows briefly needs the cache twice
_ROWS = {"cpu": 16, "cuda": 64}
_WARM_UP_SECONDS = 600
_GENERATION = "generation_config.json"
_FILES_STEP = "Put the file there again as it was (a base model with `finetune-trainer cache`), or serve another model."
_GENERATION_STEP = "Correct the field there or take it out: without it the default is that of OpenAI."
_UNKNOWN_CONTEXT = 2048  # for models whose config has no limit


@dataclass(frozen=True)
class LoadOptions:
    """How to serve a model."""

    name: str
    max_model_length: int | None = None
    dtype: Dtype = "auto"
    max_batch_size: int | None = None
    max_waiting: int = 128
    trust_remote_code: bool = False


def load(artifact: Artifact, options: LoadOptions) -> Served:
    """Load the model, start its engine and generate a first answer.

    Raises:
        TrainerError: ModelUnusable, SpecInvalid or OutOfMemory.
    """
    torch.set_num_threads(cpu_threads())
    config = _load_config(artifact, options)  # first: transformers reads it for the tokenizer too
    tokenizer = _load_tokenizer(artifact, options)
    sampling = _default_sampling(artifact)
    model = _load_model(artifact, config, options)
    encoder_decoder = bool(model.config.is_encoder_decoder)
    ends = _end_tokens(artifact, model, tokenizer)
    with _in_words(f"{artifact.base} cannot be served as its configuration says"):
        context = _context(model.config, options.max_model_length)
        capacity = _capacity(model, context, options)
        generations = _generations(model)
    engine = Engine(
        generations,
        decode=lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        ends=ends,
        capacity=capacity,
    )
    prompts = Prompts(tokenizer, decoder_start=model.config.decoder_start_token_id if encoder_decoder else None)
    engine.start()
    _warm_up(engine, prompts)
    _log.info(
        "serving %s: %s, %s, context %d, up to %d generations at once in %d positions, %d threads",
        options.name, model.device, model.dtype, context, capacity.rows, capacity.tokens, torch.get_num_threads(),
    )  # fmt: skip
    return Served(
        name=options.name,
        context=context,
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        prompts=prompts,
        engine=engine,
        sampling=sampling,
        encoder_decoder=encoder_decoder,
    )


def _generations(model: Any) -> Generations:
    if model.config.is_encoder_decoder:
        return seq2seq_batch.Seq2SeqBatch(model)
    if cache_name(model) is None:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"models of type {model.config.model_type} keep their state in a way that this server does not know",
        )
    return Batch(model, can_join=can_join(model))


def _load_tokenizer(artifact: Artifact, options: LoadOptions) -> Any:
    with _in_words(f"the tokenizer in {artifact.tokenizer} cannot be loaded", _FILES_STEP):
        tokenizer = tokenizer_file.loaded(artifact.tokenizer, trust_remote_code=options.trust_remote_code)
    if not getattr(tokenizer, "is_fast", False):
        raise TrainerError(Reason.MODEL_UNUSABLE, f"{artifact.tokenizer} has no tokenizer.json")
    return tokenizer


def _load_config(artifact: Artifact, options: LoadOptions) -> Any:
    config_file.require(artifact.base, tuned=False)
    with _in_words(f"the configuration of {artifact.base} cannot be read"):
        return AutoConfig.from_pretrained(
            artifact.base, local_files_only=True, trust_remote_code=options.trust_remote_code
        )


def _load_model(artifact: Artifact, config: Any, options: LoadOptions) -> Any:
    four_bit.block_import(artifact.base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, dtype = _kind(artifact, config), choose_dtype(options.dtype, config, artifact.base, device)
    dequantised = as_numbers(config)
    with _in_words(f"{artifact.base} cannot be loaded"), _room_on_device(artifact.base):
        model, found = kind.from_pretrained(
            artifact.base,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=options.trust_remote_code,
            device_map={"": device},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `require_whole` refuses them, and says which
            **attention_of(config),
        )
    if dequantised:
        in_one_dtype(model, dtype)
    require_whole(artifact.base, found)
    require_no_rest(artifact.base, model, found["unexpected_keys"])
    if artifact.is_adapter:
        said = f"{artifact.folder}, on {artifact.base}, cannot be loaded"
        with _in_words(said), _room_on_device(artifact.base):
            model = _with_adapter(model, artifact.folder)
    return model.train(mode=False).requires_grad_(False)


@contextmanager
def _in_words(what: str, next_step: str | None = None) -> Iterator[None]:
    """Turn any exception about a file of the model into a readable error: libraries validate little.

    Raises:
        TrainerError: ModelUnusable. Errors of memory and devices are not the model's fault, and pass through.
    """
    try:
        yield
    except TrainerError:
        raise
    except SafetensorError as error:
        raise _unusable(what, error, PUT_THERE_AGAIN) from error
    except Exception as error:
        if is_of_the_device(error):
            raise
        raise _unusable(what, error, next_step) from error


@contextmanager
def _room_on_device(base: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        of_device = is_short_of_device_memory(error)
        if not of_device and not is_short_of_memory(error):
            raise
        whose, more = ("accelerator's", "accelerator memory") if of_device else ("machine's", "memory")
        step = f"Choose a node with more {more}, or serve a smaller model."
        raise TrainerError(Reason.OUT_OF_MEMORY, f"{base} does not fit into the {whose} memory", step) from error


def _kind(artifact: Artifact, config: Any) -> Any:
    if not config.is_encoder_decoder:
        return AutoModelForCausalLM
    if config.model_type not in ENCODER_DECODERS or config.decoder_start_token_id is None:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{artifact.base} is an encoder-decoder ({config.model_type}) of a kind that is not served",
            f"Serve one of {', '.join(sorted(ENCODER_DECODERS))}, or a causal model.",
        )
    return AutoModelForSeq2SeqLM


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftConfig, PeftModel

    kind = PeftConfig.from_pretrained(str(folder)).peft_type
    if kind != "LORA":
        message = f"{folder} holds an adapter of type {getattr(kind, 'value', kind)}; only LoRA is served"
        raise TrainerError(Reason.MODEL_UNUSABLE, message)
    tuned = PeftModel.from_pretrained(model, folder, is_trainable=False)
    if getattr(model, "is_quantized", False):
        return tuned.get_base_model()  # keep the adapter's layers: merged into 4 bits they would lose precision
    part_shared_weights(tuned)
    return tuned.merge_and_unload()


def choose_dtype(asked: Dtype, config: Any, base: Path, device: str) -> torch.dtype:
    """The dtype of the weights in memory.

    On an accelerator the saved one. On a CPU float32 if it takes at most half of the free memory: every CPU computes it
    fast, and with its precision answers do not depend on the rest of the batch; otherwise bfloat16. Encoder-decoders
    never use float16: T5 overflows in it.

    Raises:
        TrainerError: SpecInvalid, float16 for an encoder-decoder.
    """
    encoder_decoder = getattr(config, "is_encoder_decoder", False)
    if encoder_decoder and asked == "float16":
        raise TrainerError(
            Reason.SPEC_INVALID,
            "--dtype float16: an encoder-decoder's sums leave its range",
            "Use bfloat16 or float32.",
        )
    if asked != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[asked]
    saved = _saved_as(config)
    if device != "cpu":
        return torch.bfloat16 if encoder_decoder and saved is torch.float16 else saved
    weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    as_float32 = weights * 4 // saved.itemsize
    return torch.float32 if as_float32 <= free_memory() // 2 else torch.bfloat16


def _saved_as(config: Any) -> torch.dtype:
    """The weights' dtype in the configuration, of the text model if there are several; bfloat16 for 8 bits and less."""
    said = getattr(config, "dtype", None)
    if isinstance(said, dict):
        said = getattr(torch, str(said.get("text_config") or said.get("")), None)
    saved: torch.dtype = said or torch.float32
    return saved if saved.is_floating_point and saved.itemsize > 1 else torch.bfloat16


def _end_tokens(artifact: Artifact, model: Any, tokenizer: Any) -> frozenset[int]:
    generation, where = model.generation_config, artifact.generation / _GENERATION
    if where.is_file():
        with _in_words(f"{where} cannot be read", _FILES_STEP):
            generation = GenerationConfig.from_pretrained(artifact.generation, local_files_only=True)
    named = generation.eos_token_id
    ends = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id} - {None}
    if not all(isinstance(end, int) for end in ends):
        raise TrainerError(
            Reason.MODEL_UNUSABLE, f"{where}: eos_token_id {str(named)[:40]!r} is not a token", _FILES_STEP
        )
    return frozenset(ends)


def _default_sampling(artifact: Artifact) -> Sampling:
    """Defaults for requests: the model's own recommendation, otherwise OpenAI's.

    Raises:
        TrainerError: ModelUnusable, its recommendation is invalid.
    """
    path = artifact.generation / _GENERATION
    with _in_words(f"{path} cannot be read", _FILES_STEP):
        own = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    temperature, top_p, top_k = own.get("temperature"), own.get("top_p"), own.get("top_k")
    for wrong in wrong_sampling(own):
        raise TrainerError(Reason.MODEL_UNUSABLE, f"{path}: {wrong.field} {wrong.why}", _GENERATION_STEP)
    return Sampling(float(1 if temperature is None else temperature), float(top_p or 1), max(int(top_k or 0), 0))


def _context(config: Any, asked: int | None) -> int:
    can = context_of(config.get_text_config(decoder=True))
    if asked is not None and can is not None and asked > can:
        raise TrainerError(
            Reason.SPEC_INVALID, f"--max-model-length {asked}: the model can hold {can} tokens",
            f"Set maxModelLength to {can} or less, or leave it out.",
        )  # fmt: skip
    return int(asked or can or _UNKNOWN_CONTEXT)


def _capacity(model: Any, context: int, options: LoadOptions) -> Capacity:
    rows = options.max_batch_size or _ROWS[model.device.type]
    joins = seq2seq_batch.can_join if model.config.is_encoder_decoder else can_join
    if not joins(model):  # one row at a time: nothing to share, and the state may not be keys and values
        return Capacity(rows=1, tokens=context, waiting=options.max_waiting)
    free = torch.cuda.mem_get_info()[0] if model.device.type == "cuda" else free_memory()
    tokens = int(free * _CACHE_SHARE) // bytes_per_token(model.config, model.dtype)
    if tokens < context:
        _log.warning("free memory holds %d tokens, the context is %d: a long request may exceed it", tokens, context)
    return Capacity(rows=rows, tokens=tokens, waiting=options.max_waiting)


def bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values in all layers."""
    text = config.get_text_config(decoder=True)
    layers = text.per_layer_config if text.is_heterogeneous else [text] * text.num_hidden_layers  # Gemma 4's differ
    return sum(map(_numbers_per_token, layers)) * dtype.itemsize


def _numbers_per_token(layer: Any) -> int:
    heads: int = layer.num_attention_heads
    width: int = getattr(layer, "head_dim", None) or layer.hidden_size // heads
    return 2 * width * (getattr(layer, "num_key_value_heads", None) or heads)


def _warm_up(engine: Engine, prompts: Prompts) -> None:
    """Two short generations of different length: shows that the model answers, and that rows can join and leave."""
    received: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    tokens = prompts.warm_up()
    greedy = Sampling(temperature=0)
    asks = [Ask(tokens * times, max_tokens=2 + times, tell=received.put, sampling=greedy) for times in (1, 2)]
    engine.submit(asks)
    ended = 0
    while ended < len(asks):
        piece = received.get(timeout=_WARM_UP_SECONDS)
        if piece.failed:
            engine.close()
            raise TrainerError(Reason.MODEL_UNUSABLE, "the model was loaded but failed on a first short answer")
        ended += piece.is_last


def _unusable(what: str, error: Exception, next_step: str | None = None) -> TrainerError:
    why = " ".join(str(error).split())[:300]
    return TrainerError(Reason.MODEL_UNUSABLE, f"{what}: {type(error).__name__}: {why}", next_step)
