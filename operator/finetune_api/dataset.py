"""What a FineTuneJob learns from: where its files are, and the names of their columns."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, ObjectRef, rules
from finetune_api.uris import (
    HUB_HELP,
    HUB_PLACE,
    KEY_SHAPE,
    OBJECT_SHAPE,
    ODD_CHARACTERS,
    PAGE_HELP,
    PAGE_OF_A_HUB,
    PLACEHOLDER,
    PLACEHOLDER_HELP,
    SIGNED,
    SIGNED_HELP,
    STEPS_UP,
    WEB_HELP,
    WEB_PLACE,
)

DataFormat = Literal["Auto", "CSV", "JSONLines", "JSON", "Parquet"]

_URI_RULES = rules(
    (
        f"self.matches('^((pvc|configmap)://{OBJECT_SHAPE}|(s3|gs|abfs|hf|https)://[^/]+)/.+')",
        "uri needs a scheme, a place and a path: pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/KEY, "
        "gs://BUCKET/KEY, abfs://CONTAINER/PATH, hf://datasets/OWNER/NAME/PATH or https://HOST/PATH, in lower case; "
        "CLAIM and NAME have a-z, 0-9, - and . only (file:// works only in `finetune-trainer check` and `run`)",
    ),
    (
        f"!self.matches(r'{STEPS_UP}|{ODD_CHARACTERS}')",
        "uri may have neither a '..' segment nor a line break, a quotation mark or a space at its end or another "
        "character that is not seen: write the path without it",
    ),
    (
        "self.startsWith('abfs') || !self.matches('^[a-z0-9]+://[^/]*@')",
        "uri holds credentials: put them into a Secret and name it in dataset.secretRef",
    ),
    (f"!self.matches('{SIGNED}')", SIGNED_HELP),
    (f"!self.matches('{PLACEHOLDER}')", PLACEHOLDER_HELP),
    (
        f"!self.startsWith('configmap://') || self.matches('^configmap://[^/]+/{KEY_SHAPE}$')",
        "a ConfigMap key has no '/', only letters, digits, -, _ and .: write configmap://NAME/KEY",
    ),
    (f"!self.startsWith('https://') || self.matches(r'{WEB_PLACE}')", WEB_HELP),
    (
        f"!self.startsWith('hf://') || self.matches('^hf://{HUB_PLACE}')",
        HUB_HELP,
    ),
    (f"!self.startsWith('https://') || !self.matches('{PAGE_OF_A_HUB}')", PAGE_HELP),
)


class DataFile(ApiModel):
    """One file of rows."""

    uri: Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=_URI_RULES)] = Field(
        description="Location of the file: pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/KEY, gs://, "
        "abfs://, hf://datasets/OWNER/NAME/PATH or https://. Volumes and ConfigMaps are those of the job's namespace."
    )
    format: DataFormat = Field(
        "Auto",
        description="File format. Auto: by the extension (.csv, .tsv, .jsonl, .ndjson, .jsonlines, .jl, .json, "
        ".parquet, .pq, optionally followed by .gz, .zst, .bz2 or .xz). Whether JSON is an array or one object per "
        "line is detected from the content in any case.",
    )


class Columns(ApiModel):
    """Names of the data's columns."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.chosen) || has(self.rejected) || (self.prompt != self.completion && "
                "self.prompt != self.system && self.completion != self.system)",
                "columns.prompt, completion and system are three columns: name each of them once",
            ),
            (
                "!has(self.chosen) || !has(self.rejected) || self.chosen != self.rejected",
                "columns.chosen and rejected are two columns: name each of them once",
            ),
        )
    )
    prompt: Annotated[str, Field(min_length=1, max_length=128)] = Field("prompt", description="Column with the prompt.")
    completion: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "completion", description="Column with the completion."
    )
    system: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "system", description="Column with the optional system message."
    )
    messages: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "messages", description="Column with a whole conversation, used if a row has no prompt or no completion."
    )
    chosen: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="With preference: column with the preferred answer. Default: chosen."
    )
    rejected: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="With preference: column with the rejected answer. Default: rejected."
    )

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a row must have, by the names of these fields."""
        return ("prompt", "completion") if self.chosen is None else ("prompt", "chosen", "rejected")

    @property
    def are_apart(self) -> bool:
        """Whether no column has two roles."""
        answers = (self.chosen, self.rejected)
        if any(answers):
            return answers[0] != answers[1]
        return len({self.prompt, self.completion, self.system}) == 3

    @property
    def named(self) -> dict[str, str]:
        """The names of a row's columns by role: with one answer or, for pairs, two."""
        names: dict[str, str] = self.model_dump(exclude_none=True)
        if self.chosen is not None:
            del names["completion"]
        return names

    def of_pairs(self) -> Self:
        """The same for rows with two answers, both of which have a column."""
        return self.model_copy(update={"chosen": self.chosen or "chosen", "rejected": self.rejected or "rejected"})


class Dataset(ApiModel):
    """Data to train on, and to validate and test with."""

    train: DataFile = Field(description="Training data.")
    validation: DataFile | None = Field(
        None, description="Validation data: their loss is computed during training and shown as the second loss curve."
    )
    test: DataFile | None = Field(
        None, description="Test data: after training, the tuned model and its baselines answer these rows."
    )
    columns: Columns = Field(
        Columns(),
        description="Names of the columns, if they differ from the defaults. The layouts of Alpaca (instruction, "
        "input, output) and ShareGPT (conversations) are recognised without it.",
    )
    secret_ref: ObjectRef | None = Field(
        None,
        description="Secret of the job's namespace with credentials of the stores, under the names that their own "
        "tools use, for example AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_KEY or HF_TOKEN. Absent: public data, or "
        "the identity of the pod's service account.",
    )
