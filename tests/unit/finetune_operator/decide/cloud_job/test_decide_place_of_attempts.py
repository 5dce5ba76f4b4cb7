"""Where at its provider a job is: where it was begun, whatever its connection says by now."""

import pytest

from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import given, status


@pytest.mark.parametrize(
    ("noted", "recorded", "held", "place"),
    [
        ("https://noted", "https://recorded", True, "https://noted"),
        (None, "https://recorded", True, "https://recorded"),
        (None, None, True, "https://api.openai.com/v1"),
        ("https://noted", "https://recorded", False, "https://api.openai.com/v1"),
    ],
)
def test_a_job_is_where_it_was_begun_as_long_as_anything_may_be_left_there(
    noted: str | None, recorded: str | None, held: bool, place: str
) -> None:
    assert given(status=status(place=recorded), noted_place=noted, has_finalizer=held).place == place
