"""Names of deployments: an object's own, those of an earlier one, and some that come back in other letters."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api.deployment import ModelDeploymentSpec
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.providers.remote.hosting import Hosting, maker, namesakes, prefix


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


UID = "0d2c7d0e-0000-4000-8000-000000abc123"


def object_of(*recorded: str, attached: bool = False) -> dict[str, Any]:
    hosted = [{"name": name, "attached": attached} for name in recorded]
    return {"metadata": {"namespace": "team-a", "name": "sentiment", "uid": UID}, "status": {"hosted": hosted}}


def spec_of(**azure: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.model_validate({"modelRef": {"name": "sentiment"}, "azureOpenAI": azure})


@pytest.mark.parametrize(
    ("deployment", "begins"),
    [
        (object_of(), "team-a-sentiment-abc123-v"),
        (object_of("team-a-sentiment-0000ff-v3"), "team-a-sentiment-0000ff-v"),
        (object_of("team-a-sentiment-0000ff-v3", attached=True), "team-a-sentiment-abc123-v"),
        (object_of("team-b-sentiment-0000ff-v3"), "team-a-sentiment-abc123-v"),
        (object_of("team-a-sentiment-0000ff-p1nv3"), "team-a-sentiment-abc123-v"),
        (object_of("team-a-sentiment-0000ff-v3-old"), "team-a-sentiment-abc123-v"),
    ],
    ids=["new", "from a backup", "attached", "another's", "of another kind", "of another make"],
)
def test_names_begin_as_those_that_status_records(deployment: dict[str, Any], begins: str) -> None:
    assert prefix(deployment, spec_of()) == begins


def test_what_may_have_been_an_earlier_objects_is_told_by_its_name() -> None:
    found = ["team-a-sentiment-0000ff-v3", "team-a-sentiment-abc123-v4", "team-a-sentiment-v1", "prod-0000ff-v1"]
    assert namesakes(object_of(), spec_of(), found) == ["team-a-sentiment-0000ff-v3"]
    assert namesakes(object_of(), spec_of(name="prod"), found) == [], "another namespace may have chosen that"


MODEL_UID, JOB_UID = "7a1f3b52-0000-4000-8000-000000fed987", "9c3e5d74-0000-4000-8000-000000a1b2c3"


def model_of(uid: str = MODEL_UID, name: str = "sentiment") -> dict[str, Any]:
    return {"metadata": {"namespace": "team-a", "name": name, "uid": uid}}


@pytest.mark.parametrize(
    ("owner", "model", "first", "uid"),
    [
        (MODEL_UID, model_of(), {"metadata": {"uid": JOB_UID}}, JOB_UID),
        (MODEL_UID, model_of(), None, MODEL_UID),
        (MODEL_UID, model_of("made-again"), None, ""),
        (None, model_of(), None, ""),
        (MODEL_UID, model_of(name="another"), None, ""),
    ],
    ids=[
        "made for the model's first job",
        "that job is gone",
        "the model was recreated, as in another cluster",
        "made by people",
        "a model has one child, of its name",
    ],
)
def test_only_who_is_there_proves_that_it_had_the_object_made(
    owner: str | None, model: dict[str, Any], first: dict[str, Any] | None, uid: str
) -> None:
    deployment = object_of()
    deployment["metadata"]["ownerReferences"] = [{"uid": owner}] if owner else []
    assert maker(deployment, model, first) == uid


@pytest.mark.parametrize(
    ("recorded", "found", "begins"),
    [
        ([], [], "abc123fed987"),
        (["abc123a1b2c3-v1"], ["abc123fed987-v1"], "abc123a1b2c3"),
        (["0000ff-v1"], [], "0000ff"),
        ([], ["0000fffed987-v1", "other"], "0000fffed987"),
        ([], ["0000ffffffff-v1"], "abc123fed987"),
        ([], ["0000fffed987-v1", "abc123a1b2c3-v1"], "abc123a1b2c3"),
        ([], ["abc123-v1"], "abc123"),
        ([], ["fed987-v1"], "abc123fed987"),
        ([], ["0000fffed987-p1nv1"], "abc123fed987"),
    ],
    ids=[
        "new",
        "its status says",
        "from before it had a maker",
        "the one from before etcd was put back",
        "another maker's",
        "its own first",
        "its own from before it had a maker",
        "of an object that people made",
        "of another kind",
    ],
)
def test_what_a_model_has_made_has_the_maker_in_its_name_and_is_found_by_it(
    recorded: list[str], found: list[str], begins: str
) -> None:
    deployment = object_of(*(f"team-a-sentiment-{name}" for name in recorded))
    names = [f"team-a-sentiment-{name}" for name in found]
    assert prefix(deployment, spec_of(), MODEL_UID, names) == f"team-a-sentiment-{begins}-v"


def test_what_another_maker_had_made_is_told_by_its_name() -> None:
    found = ["team-a-sentiment-abc123fed987-v3", "team-a-sentiment-0000ffffffff-v1"]
    assert namesakes(object_of(), spec_of(), found, MODEL_UID) == ["team-a-sentiment-0000ffffffff-v1"]
