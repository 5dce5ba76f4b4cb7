"""Datasets in Bedrock's formats: Nova's conversations, and prompts with completions."""

import json
from typing import Any

from tests.simulators.openai.training import BYTES_PER_TOKEN, Data

SCHEMA = "bedrock-conversation-2024"
RESERVED = ("System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:", "[EOS]")


def read(content: bytes, *, conversations: bool) -> Data:
    """Read a JSON Lines file; `fault` names the first line that cannot be used."""
    data = Data()
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            prompt, answer = (_conversation if conversations else _pair)(json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            data.fault = f"line {number} does not have the format of the base model"
            return data
        if conversations and any(word in line for word in RESERVED):
            data.fault = f"line {number} has a reserved keyword"
            return data
        data.rows += 1
        data.tokens += max(1, len(line) // BYTES_PER_TOKEN)
        data.answers[prompt] = answer
    if not data.rows:
        data.fault = "the file has no rows"
    return data


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    if row.keys() != {"prompt", "completion"} or not all(isinstance(value, str) for value in row.values()):
        raise ValueError
    return row["prompt"], row["completion"]


def _conversation(row: dict[str, Any]) -> tuple[str, str]:
    messages = row["messages"]
    roles = [message["role"] for message in messages]
    if row["schemaVersion"] != SCHEMA or roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        raise ValueError
    return text_of(messages[-2]["content"]), text_of(messages[-1]["content"])


def text_of(content: list[dict[str, Any]]) -> str:
    """The text of a message's blocks."""
    return "".join(block["text"] for block in content)
