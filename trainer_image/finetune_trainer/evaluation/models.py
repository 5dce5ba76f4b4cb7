"""Loads the base model and the active version temporarily in place of the tuned one.

Adapters share their base, which is in memory once. Whole models take turns on the device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finetune_api.job import Hyperparameters
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_api.words import counted
from finetune_trainer.computing import gpus
from finetune_trainer.data import ChatTokenizer
from finetune_trainer.data.row_limit import limit_in_words
from finetune_trainer.errors import TrainerError, is_short_of_device_memory
from finetune_trainer.evaluation.generate import SMALLER, generated
from finetune_trainer.models import base_model, base_refusals
from finetune_trainer.models.generation import plain_generation
from finetune_trainer.models.kinds import context_of
from finetune_trainer.serving.artifact import Artifact, open_artifact

_NOT_ASKED = (
    "Leave dataset.test out (then nothing is asked, and the tuned model needs a server of another kind), or name "
    "another base model, and apply the job under a new name."
)

_ASKED = (1, 2, 3)
"""Token ids that every model has."""

_NO_ROOM = "the GPU's memory was not enough for the model"

_OTHER = "other"
"""Temporary name of a second adapter."""

_NO_LONGER = "the model's context holds no more"
_AS_LEARNT = "training cuts them so too"


class Model(NamedTuple):
    """A model that can answer, with its tokenizer."""

    net: Any
    tokenizer: Any
    chat: ChatTokenizer

    @property
    def generation(self) -> Any:
        """The generation settings: which tokens end an answer."""
        return plain_generation(self.net, self.tokenizer, self.chat)

    def room(self, question: int, max_new_tokens: int, *, trained: int | None = None) -> "Room":
        """How the context is divided, given the tokens of the longest question; an encoder-decoder has two contexts.

        An answer that may exceed the remaining context is shortened, down to half of the context; then questions are
        truncated. An encoder reads at most `trained` tokens, the limit in training.
        """
        config = self.net.config
        context = context_of(config.get_text_config()) or 1 << 20
        if getattr(config, "is_encoder_decoder", False):
            return Room(min(context, trained or context), min(max_new_tokens, context))
        answer = min(max_new_tokens, max(context - question, context // 2))
        return Room(context - answer, answer)


class Room(NamedTuple):
    """Maximum tokens of a prompt and of an answer."""

    prompt: int
    answer: int


def left_out(
    room: Room, questions: Sequence[int], limit: int, chat: ChatTokenizer, hyper: Hyperparameters
) -> Iterator[str]:
    """What a model does not read of questions with these lengths, and cannot write of answers up to `limit`."""
    if cut := sum(length > room.prompt for length in questions):
        cause = f"{_AS_LEARNT} ({limit_in_words(hyper, chat.positions)})"
        side, why = ("end", cause) if chat.encoder_decoder else ("beginning", _NO_LONGER)
        yield f"asked without the {side} of {counted(cut, 'question')} longer than {room.prompt:,} tokens: {why}"
    if room.answer < limit:
        yield f"answers end at {room.answer:,} tokens, not at {limit:,}: {_NO_LONGER}"


@dataclass(frozen=True)
class Tuned:
    """The model of this job, after training."""

    job: TrainerJob
    folder: Path
    """Of the base model."""
    model: Model
    compute_dtype: Any
    token_budget: int
    """Tokens of a batch, including padding."""

    @property
    def is_adapter(self) -> bool:
        """Whether it contains the unchanged base model."""
        return hasattr(self.model.net, "peft_config")


def require_answers(folder: Path, model: Model) -> None:
    """Refuse, before training, a model that cannot be evaluated because its own code cannot generate.

    Raises:
        TrainerError: ModelUnusable.
    """
    training, generation = model.net.training, model.generation
    known = len(model.net.get_input_embeddings().weight)
    first = generation.bos_token_id or 0
    asked = [first if first < known else 0, *_ASKED]  # many configs with smaller vocabularies have GPT-2's id
    try:
        with base_refusals.in_words(folder, "an answer on trial"):
            list(generated(model.net, [asked, asked[:2]], generation=generation, max_new_tokens=2, token_budget=64))
    except TrainerError as error:
        raise TrainerError(error.reason, error.message, _NOT_ASKED) from error
    finally:
        model.net.train(training)


@contextmanager
def base_of(tuned: Tuned) -> Iterator[Model]:
    """The base model, with the tuned model's tokenizer.

    Raises:
        TrainerError: OutOfMemory, it does not fit.
    """
    if tuned.is_adapter:
        with tuned.model.net.disable_adapter():
            yield tuned.model
        return
    with _in_place_of(tuned, lambda: _load(tuned, tuned.folder)) as net:
        yield tuned.model._replace(net=net)


@contextmanager
def version_in(tuned: Tuned, folder: Path) -> Iterator[Model]:
    """An earlier version of the model, from its artifact.

    Raises:
        TrainerError: the folder is missing, damaged, or does not fit its base model, or the base model is not
            available; or it does not fit into memory.
    """
    cache = Path(tuned.job.model_cache) if tuned.job.model_cache else None
    found = open_artifact(folder, cache, allow_hub=not tuned.job.air_gapped)
    if found.is_adapter and tuned.is_adapter and found.base.resolve() == tuned.folder.resolve():
        with _other_adapter(tuned.model.net, folder):
            yield _with_own_tokenizer(tuned.model.net, found, tuned)
        return
    with _in_place_of(tuned, lambda: _version(tuned, found, folder)) as net:
        yield _with_own_tokenizer(net, found, tuned)


def _version(tuned: Tuned, found: Artifact, folder: Path) -> Any:
    net = _load(tuned, found.base)
    if not found.is_adapter:
        return net
    from peft import PeftModel

    with _loading(folder):
        return PeftModel.from_pretrained(net, folder, is_trainable=False)


def _with_own_tokenizer(net: Any, found: Artifact, tuned: Tuned) -> Model:
    tokenizer = base_model.load_tokenizer(found.tokenizer, trust_remote_code=tuned.job.trust_remote_code)
    return Model(net, tokenizer, ChatTokenizer.from_folder(found.tokenizer, moment=tuned.model.chat.moment))


def same_tokens(one: ChatTokenizer, other: ChatTokenizer) -> bool:
    """Whether both models tokenise a row equally: only then are losses per token comparable."""
    if one.template != other.template:
        return False
    return bool(one.backend.get_vocab() == other.backend.get_vocab())


def _load(tuned: Tuned, folder: Path) -> Any:
    return base_model.load_model(folder, dtype=tuned.compute_dtype, trust_remote_code=tuned.job.trust_remote_code)


@contextmanager
def _other_adapter(net: Any, folder: Path) -> Iterator[None]:
    """Use a second adapter instead of the tuned one; it is removed afterwards."""
    try:
        with _loading(folder):
            net.load_adapter(folder, adapter_name=_OTHER, is_trainable=False)
        net.set_adapter(_OTHER)
        yield
    finally:
        net.set_adapter("default")
        if _OTHER in net.peft_config:
            net.delete_adapter(_OTHER)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Any exception of peft means that the adapter cannot be used, except for lack of memory."""
    try:
        yield
    except Exception as error:
        if is_short_of_device_memory(error):
            raise TrainerError(Reason.OUT_OF_MEMORY, _NO_ROOM, SMALLER) from None
        raise TrainerError(Reason.MODEL_UNUSABLE, f"{folder} cannot be loaded ({type(error).__name__})") from error


@contextmanager
def _in_place_of(tuned: Tuned, load: Callable[[], Any]) -> Iterator[Any]:
    """Another model in place of the tuned one, which waits in main memory."""
    net = tuned.model.net
    device = net.device
    net.to("cpu")
    try:
        with _on(device, load()) as other:
            yield other
    finally:
        gpus.empty_cache()
        net.to(device)


@contextmanager
def _on(device: Any, net: Any) -> Iterator[Any]:
    """The model on the device. Afterwards it has no weights: references to it, for example in an error, hold no memory.

    Raises:
        TrainerError: OutOfMemory.
    """
    try:
        yield net.to(device)
    except RuntimeError as error:
        if not is_short_of_device_memory(error):
            raise
        raise TrainerError(Reason.OUT_OF_MEMORY, _NO_ROOM, SMALLER) from None
    finally:
        net.to("meta")
