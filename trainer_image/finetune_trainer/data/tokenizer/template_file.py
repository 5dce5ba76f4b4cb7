"""Finds a model's chat template in its files, and checks that it can render a conversation at all.

A broken template is the model's fault: it is reported once, not for every row of the data.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.data.rows import Turn
from finetune_trainer.data.tokenizer.chat_template import TemplateRefusedError, TemplateTooMuchError, render
from finetune_trainer.errors import TrainerError

TEMPLATE_STEP = (
    "Correct the template there, or have the model put into the cache again (finetune-trainer cache), and try again "
    "(in a cluster by spec.retryNonce)."
)
_DEFAULT = "default"
_DEFAULT_STEP = (
    "Write the one for conversations without tools into chat_template.jinja beside tokenizer.json, or call it "
    f"{_DEFAULT} there."
)
_FILE, _MORE, _CONFIG = "chat_template.jinja", "additional_chat_templates", "tokenizer_config.json"


def template_from_files(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, str]:
    """The template and its file, found as transformers does; None if the model has none.

    chat_template.jinja takes precedence over the config's chat_template, which may be several named ones.

    Raises:
        TrainerError: ModelUnusable, there are named templates, but none is for conversations without tools.
    """
    path = folder / _FILE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), _FILE
        except (OSError, ValueError) as error:
            message = f"{_FILE} of the base model cannot be read: {type(error).__name__}"
            raise TrainerError(Reason.MODEL_UNUSABLE, message) from None
    more = sorted(one.stem for one in folder.glob(f"{_MORE}/*.jinja"))
    if more:
        raise _without_default(_MORE, more)
    return _of_config(config.get("chat_template")), _CONFIG


def _of_config(given: Any) -> str | None:
    if not given or isinstance(given, str):
        return given or None
    try:
        named = dict(given) if isinstance(given, Mapping) else {one["name"]: one["template"] for one in given}
    except (LookupError, TypeError):
        named = {"": None}
    if not all(isinstance(text, str) for pair in named.items() for text in pair):
        message = (
            f"{_CONFIG} of the base model: chat_template is neither text nor a list of objects with name and template"
        )
        raise TrainerError(Reason.MODEL_UNUSABLE, message, TEMPLATE_STEP)
    if _DEFAULT not in named:
        raise _without_default(_CONFIG, list(named))
    return str(named[_DEFAULT])


def _without_default(place: str, names: list[str]) -> TrainerError:
    shown = ", ".join(names[:5])
    message = f"{place} of the base model has chat templates with names ({shown}), and none that is called {_DEFAULT}"
    return TrainerError(Reason.MODEL_UNUSABLE, message[:500], _DEFAULT_STEP)


def require_renders(template: str, special_tokens: Mapping[str, str], file: str) -> None:
    """Refuse a template that fails on every conversation, or does not write the answer.

    One that calls raise_exception may accept other conversations: the rows will tell.

    Raises:
        TrainerError: ModelUnusable.
    """
    faults: list[str] = []
    written = False
    for earlier in _earlier_turns():
        try:
            one, other = (
                render(template, [*earlier, Turn("assistant", text)], special_tokens, add_generation_prompt=False)
                for text in ("yes", "no")
            )
        except TemplateTooMuchError as error:
            faults.insert(0, str(error))
            break
        except MemoryError:  # for a conversation of a few words, so no row is to blame
            faults.insert(0, "it takes more memory than there is")
            break
        except TemplateRefusedError as error:
            faults += [error.fault] if error.fault else []
            continue
        if one != other:
            return
        written = True
    if written and not faults:
        message = f"the chat template of the model writes nothing of an answer ({file}): nothing could be learnt"
    elif faults:
        message = f"the chat template of the model fails ({file}): {faults[0]}"[:500]
    else:
        return
    raise TrainerError(Reason.MODEL_UNUSABLE, message, TEMPLATE_STEP)


def _earlier_turns() -> Iterator[list[Turn]]:
    """Conversations before an answer."""
    asked, system = Turn("user", "Is it so?"), Turn("system", "Be short.")
    for before in ([], [system]):
        yield [*before, asked]
        yield [*before, asked, Turn("assistant", "It is."), asked]
