"""The verdict on a dataset: what `finetune-trainer check` prints, and what status.dataset contains."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.reasons import Reason

NAMED_PROBLEMS = 20
"""How many bad rows are listed; all are counted."""

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

ProblemKind = Literal["Missing", "Empty", "NotText", "Malformed", "NoCompletion", "SameAnswers"]


class RowProblem(ApiModel):
    """A row that cannot be used. Refers to the row without quoting it: rows may contain personal data."""

    file: Annotated[str, Field(max_length=256)] = Field(description="File name.")
    line: int | None = Field(None, description="Line of the file, from 1; for formats that have lines.")
    row_group: int | None = Field(None, description="Parquet row group, from 0.")
    row: int | None = Field(None, description="Row, from 0 within its row group, or element of a JSON array from 0.")
    field: Annotated[str, Field(max_length=128)] | None = Field(None, description="Column that has the problem.")
    problem: ProblemKind = Field(description="What is wrong.")
    message: Annotated[str, Field(max_length=300)] = Field(description="The same, for people.")


class SplitVerdict(ApiModel):
    """What one file contains."""

    file: Annotated[str, Field(max_length=256)] = Field(description="File name.")
    format: Annotated[str, Field(max_length=64)] = Field(description="How the file was read.")
    rows: int = Field(description="Number of rows, valid and invalid.")
    bad_rows: int = Field(0, description="Number of rows that cannot be used.")
    problems: Annotated[list[RowProblem], Field(max_length=NAMED_PROBLEMS)] = Field(
        default_factory=list, description="The first invalid rows, at most 20."
    )
    duplicate_rows: int = Field(0, description="Number of rows that are identical to an earlier row of the file.")
    tokens: int | None = Field(None, description="Number of tokens of all rows, with the model's chat template.")
    completion_tokens: int | None = Field(None, description="Number of tokens that carry loss.")
    longest_row: int | None = Field(None, description="Tokens of the longest row.")
    truncated_rows: int | None = Field(
        None, description="Number of rows longer than maxSequenceLength; their end is cut."
    )
    bytes: int | None = Field(None, description="Size of the file as it is stored, in bytes.")
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="sha256", description="SHA-256 of the file as it is stored."
    )


class SharedRows(ApiModel):
    """Rows that are in two splits: the model would be evaluated on what it was trained on."""

    splits: Annotated[list[SplitName], Field(min_length=2, max_length=2)] = Field(description="The two splits.")
    rows: int = Field(description="Number of rows of the second split that are in the first too.")
    examples: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=5)] = Field(
        default_factory=list, description="File and line of the first of them in the second split."
    )


class DatasetVerdict(ApiModel):
    """Whether a dataset can be used, and what was found in it."""

    valid: bool = Field(description="Whether every row of every split can be used.")
    reason: Annotated[Reason, Field(max_length=64)] = Field(description="Valid, or why not.")
    message: Annotated[str, Field(max_length=4096)] = Field(description="The verdict in one sentence.")
    next_step: Annotated[str, Field(max_length=1024)] | None = Field(None, description="What to do about it.")
    train: SplitVerdict | None = Field(None, description="The training set.")
    validation: SplitVerdict | None = Field(None, description="The validation set.")
    test: SplitVerdict | None = Field(None, description="The test set.")
    shared_rows: Annotated[list[SharedRows], Field(max_length=3)] = Field(
        default_factory=list, description="Rows that occur in two splits: a warning, not an error."
    )
    warnings: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=16)] = Field(
        default_factory=list, description="Findings that are allowed but probably not intended."
    )
