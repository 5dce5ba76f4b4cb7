"""The tokenizer that own code saved with its model: servers use the base model's, so a difference gets a warning."""

from pathlib import Path

from finetune_api.job_status import TOKENIZER_LEFT_OUT
from finetune_trainer.data import ChatTokenizer
from finetune_trainer.errors import TrainerError


def left_out(base: Path, folder: Path) -> list[str] | None:
    """A warning if the folder has a tokenizer other than the base's; otherwise None."""
    if not (folder / "tokenizer.json").is_file():
        return None
    try:
        was, now = ChatTokenizer.from_folder(base), ChatTokenizer.from_folder(folder)
    except TrainerError:
        return None  # nobody could use it anyway
    words, known = now.backend.get_vocab(), was.backend.get_vocab()
    more = len(words.keys() - known.keys())
    apart = {
        f"{more} token{'s' * (more > 1)} more": more > 0,
        "other tokens": words != known and not more,
        "another chat template": was.decoder_start is None and was.template != now.template,
    }
    found = [what for what, is_so in apart.items() if is_so]
    if not found:
        return None
    step = "Train with the base model's, or put a model that has these into the cache as the base model"
    return [f"{TOKENIZER_LEFT_OUT}: it has {' and '.join(found)} than the base model's, which servers use. {step}"]
