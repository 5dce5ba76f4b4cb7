"""Names of deployments that come back in other letters than they were made by."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_operator.decide.hosted import Hosted
from finetune_operator.providers.hosting import Hosting


def hosting(*, names_have_case: bool) -> Hosting:
    async def listed() -> list[Hosted]:
        return [Hosted("TEAM-A-SENTIMENT-V1", "Ready"), Hosted("Theirs", "Ready")]

    async def host(do: Any) -> Any:
        return await do(SimpleNamespace(list=listed, names_have_case=names_have_case))

    accounts: Any = SimpleNamespace(of=lambda _: SimpleNamespace(host=host))
    return Hosting(accounts)


@pytest.mark.parametrize(("names_have_case", "name"), [(False, "team-a-sentiment-v1"), (True, "TEAM-A-SENTIMENT-V1")])
async def test_where_names_have_no_case_what_is_known_is_called_by_the_known_name(
    names_have_case: bool, name: str
) -> None:
    found = await hosting(names_have_case=names_have_case).list("azure", ["team-a-sentiment-v1"])
    assert {by: one.name for by, one in found.items()} == {name: name, "Theirs": "Theirs"}
