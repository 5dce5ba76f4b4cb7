"""A simulated training: steps, tokens and losses from its data, and a model that repeats its rows' answers.

Nothing is trained. Losses are a falling curve that depends on the seed; the tuned model answers a prompt of its
training data with that row's answer (of the first 10,000 rows) and any other prompt with the prompt itself.
"""

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
)
from typing_extensions import TypedDict

from tests.simulators.shapes import unknown_keys

BYTES_PER_TOKEN = 4
MINIMUM_ROWS = 10
REMEMBERED = 10_000


@dataclass
class Data:
    """A dataset as the provider sees it. `fault` says what is wrong with it, without quoting it."""

    rows: int = 0
    tokens: int = 0
    answers: dict[str, str] = field(default_factory=dict)
    fault: str | None = None


class PreferenceInput(TypedDict):
    """The prompt of two answers."""

    messages: list[ChatCompletionMessageParam]
    tools: NotRequired[list[ChatCompletionFunctionToolParam]]
    parallel_tool_calls: NotRequired[bool]


class PreferenceRow(TypedDict):
    """A row of method dpo. The SDK has no type for it; the guide on direct preference optimization shows one."""

    input: PreferenceInput
    preferred_output: list[ChatCompletionAssistantMessageParam]
    non_preferred_output: list[ChatCompletionAssistantMessageParam]


def read(path: Path, *, pairs: bool = False) -> Data:
    """Read a JSON Lines file of conversations, or of prompts with two answers each."""
    data = Data()
    turn, form = (_better, "prompt with two answers") if pairs else (_turn, "list of messages that ends with the "
                                                                     "assistant's")  # fmt: skip
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                prompt, answer = turn(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")))
            except (ValueError, KeyError, TypeError, AttributeError):
                data.fault = f"line {number} is not a JSON object with a {form}"
                return data
            data.rows += 1
            data.tokens += max(1, len(line) // BYTES_PER_TOKEN)
            if len(data.answers) < REMEMBERED:
                data.answers[prompt] = answer
    return data


def _turn(row: dict[str, Any]) -> tuple[str, str]:
    messages = row["messages"]
    if messages[-1]["role"] != "assistant" or not isinstance(messages[-1]["content"], str):
        raise ValueError
    return prompt_of(messages[:-1]), messages[-1]["content"]


def _better(row: dict[str, Any]) -> tuple[str, str]:
    """The prompt and the better answer: one question each, and answers that differ."""
    if unknown_keys(PreferenceRow, row):
        raise ValueError
    messages, [better], [worse] = row["input"]["messages"], row["preferred_output"], row["non_preferred_output"]
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["system", "user"]) or not better["content"] or not worse["content"]:
        raise ValueError
    return prompt_of(messages), better["content"]


def prompt_of(messages: list[dict[str, Any]]) -> str:
    """The last message of the user."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    if not said:
        return ""
    return said[-1] if isinstance(said[-1], str) else "".join(part.get("text", "") for part in said[-1])


@dataclass(frozen=True)
class Course:
    """How long a training takes."""

    epochs: int
    batch_size: int
    learning_rate_multiplier: float
    rows: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch_size)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs


def course(rows: int, hyperparameters: dict[str, Any]) -> Course:
    """Hyperparameters with `auto` resolved: three epochs, a 500th of the rows in a batch."""
    chosen = {name: value for name, value in hyperparameters.items() if value not in {"auto", None}}
    return Course(
        epochs=chosen.get("n_epochs", 3),
        batch_size=chosen.get("batch_size", max(1, round(rows / 500))),
        learning_rate_multiplier=chosen.get("learning_rate_multiplier", 1.8),
        rows=rows,
    )


def metrics(step: int, course: Course, seed: int, *, validated: bool) -> dict[str, float]:
    """The metrics of a step; those of the full validation are added at the last step of an epoch."""
    loss = 0.4 + 1.6 * math.exp(-3 * step / course.steps) + _noise(step, seed)
    found = {"train_loss": round(loss, 5), "train_mean_token_accuracy": round(math.exp(-loss / 2), 5)}
    if validated:
        found |= {"valid_loss": round(loss + 0.1, 5), "valid_mean_token_accuracy": round(math.exp(-loss / 2 - 0.05), 5)}
        if step % course.steps_per_epoch == 0:
            found |= {"full_valid_loss": round(loss + 0.12, 5),
                      "full_valid_mean_token_accuracy": round(math.exp(-loss / 2 - 0.06), 5)}  # fmt: skip
    return {"step": step} | found


def metrics_of_pairs(
    step: int, course: Course, seed: int, *, validated: bool, rewards: bool = False
) -> dict[str, float]:
    """The same for two answers to a prompt: the loss begins at ln 2, where neither is preferred."""
    loss = math.log(2) * math.exp(-2 * step / course.steps) + abs(_noise(step, seed))
    margin = -math.log(math.expm1(loss))
    sets = {"train": 0.0, "valid": 0.05} if validated else {"train": 0.0}
    found = {f"{name}_loss": round(loss + more, 5) for name, more in sets.items()}
    if rewards:
        found |= {f"{name}_reward_margin": round(margin - more, 5) for name, more in sets.items()}
        found |= {f"{name}_reward_accuracy": round(1 / (1 + math.exp(more - margin)), 5) for name, more in sets.items()}
    return {"step": step} | found


def _noise(step: int, seed: int) -> float:
    return random.Random(seed * 1_000_003 + step).uniform(-0.03, 0.03)
