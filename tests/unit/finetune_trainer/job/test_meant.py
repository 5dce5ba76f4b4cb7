"""A field whose name is misspelt is answered with the one that was meant, in every part of every kind."""

import re

import pytest
from pydantic import create_model

from finetune_api.connection import PROVIDERS, LLMConnectionSpec
from finetune_api.crds import KINDS
from finetune_api.deployment import ENGINES
from finetune_api.job import FineTuneJobManifest
from finetune_api.near_names import plain
from finetune_trainer.job.fields import field_names, model_at, places
from finetune_trainer.job.manifest import OtherManifest
from finetune_trainer.job.meant import meant, of_other_providers
from finetune_trainer.job.other_names import PLACES, REMARKS

SHORT = 3
"""Letters of names of which too little is left when one is gone."""

EITHER = ("instance",)
"""What may mean instances as well as instanceType."""


def misspelt(name: str) -> set[str]:
    """With a letter less, with two letters in the wrong order, and in the spellings of other languages."""
    without = {name[:place] + name[place + 1 :] for place in range(len(name))}
    swapped = {name[:place] + name[place + 1] + name[place] + name[place + 2 :] for place in range(len(name) - 1)}
    apart = [re.sub(r"(?<!^)(?=[A-Z])", mark, name).lower() for mark in "_-"]
    return {*without, *swapped, *apart, name.lower(), name.upper()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_field_that_was_meant_is_told(kind):
    other = create_model(kind.kind, __base__=OtherManifest, spec=(kind.spec, ...))
    root = FineTuneJobManifest if kind.kind == "FineTuneJob" else other
    tried, missed = 0, []
    for place in (place for found in places(root).values() for place in found if place.startswith("spec.")):
        *above, name = place.split(".")
        for written in (
            misspelt(name).difference(EITHER, field_names(model_at(above, root))) if len(name) > SHORT else ()
        ):
            tried += 1
            said = meant([*above, written], {"kind": kind.kind}, root)
            missed += [] if f"did you mean {name}?" in said else [f"{place}: {written}{said}"]
    assert tried > len(field_names(kind.spec)) * 5
    assert missed == []


def blocks():
    """The parts that go with one provider, and a kind that has each."""
    return [(one, "LLMConnection") for one in PROVIDERS] + [(one, "ModelDeployment") for one in ENGINES]


@pytest.mark.parametrize("name", ["apiVersion", "kind", "metadata", "spec", "status", "name", ""])
@pytest.mark.parametrize(("block", "kind"), blocks())
def test_what_belongs_to_the_object_itself_is_answered_anywhere_below_it(block, kind, name):
    """`check` ended with a traceback where an apiVersion stood in a provider's block, as Azure's clients have it."""
    spec = next(one.spec for one in KINDS if one.kind == kind)
    root = create_model(kind, __base__=OtherManifest, spec=(spec, ...))
    manifest = {"kind": kind, "spec": {block: {}}}
    parents = {tuple(place.split(".")[:-1]) for found in places(root).values() for place in found}
    assert all(isinstance(meant([*parent, name], manifest, root), str) for parent in parents if parent)


def test_a_field_of_another_provider_is_told_as_that():
    root = create_model("LLMConnection", __base__=OtherManifest, spec=(LLMConnectionSpec, ...))
    manifest = {"kind": "LLMConnection", "spec": {"bedrock": {}}}
    for path, said in (("kmsKeyID", "; it is a field of sageMaker"), ("endpoints.bedrock", "")):
        whole = ["spec", "bedrock", *path.split(".")]
        assert (meant(whole, manifest, root), of_other_providers(whole, manifest, root)) == ("", said)


def test_no_name_of_another_tool_means_two_things():
    names = [plain(name) for table in (PLACES, REMARKS) for found in table.values() for name in found]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("path", "meant_place"),
    [
        ("spec.modelRef.dataset", "spec.dataset"),
        ("spec.dataset.train.hyperparameters", "spec.hyperparameters"),
        ("spec.dataset.train.validation", "spec.dataset.validation"),
        ("spec.evaluation.judge.suspend", "spec.suspend"),
        ("spec.dataset.uri", "spec.dataset.train.uri"),
    ],
)
def test_what_is_indented_wrongly_is_told_where_it_stands(path, meant_place):
    assert meant(path.split("."), {"kind": "FineTuneJob"}, FineTuneJobManifest) == f"; here it is {meant_place}"


def test_a_field_that_stands_further_out_already_is_not_told_again():
    manifest = {
        "kind": "FineTuneJob",
        "spec": {"dataset": {"train": {"uri": "pvc://data/a"}}, "modelRef": {"dataset": 1}},
    }
    assert "here it is" not in meant(["spec", "modelRef", "dataset"], manifest, FineTuneJobManifest)


SAID = [
    # what looked most alike was another thing, or the opposite
    ("FineTuneJob", "spec.apiKeySecretRef", None, "address and keys of a provider are in the connection"),
    ("FineTuneJob", "spec.dataSources", None, "spec.dataset.train.uri"),
    ("FineTuneJob", "spec.dataset.train.secretName", None, "spec.dataset.secretRef"),
    ("FineTuneJob", "spec.dataset.training", None, "did you mean train?"),
    ("FineTuneJob", "spec.dataset.splits", {"train": 0.9, "test": 0.1}, "split the rows beforehand"),
    (
        "FineTuneJob",
        "spec.dataset.splits",
        {"train": {"uri": "pvc://data/a"}},
        "its fields belong directly in spec.dataset",
    ),
    ("LLMConnection", "spec.fineTuning.blockedModels", None, "none can be excepted"),
    ("LLMConnection", "spec.huggingFace.token", None, "a job's hubTokenSecretRef"),
    ("LLMConnection", "spec.local", None, "here it is huggingFace"),
    ("FineTunedModel", "spec.maxVersions", None, "historyLimit"),
    ("ModelDeployment", "spec.azureOpenAI.skuName", None, "here it is sku"),
    ("ModelDeployment", "spec.suspend", None, "huggingFace: {replicas: 0}"),
]


@pytest.mark.parametrize(("kind", "path", "value", "said"), SAID, ids=str)
def test_what_people_and_language_models_write_is_answered_with_what_is_meant(kind, path, value, said):
    spec = next(one.spec for one in KINDS if one.kind == kind)
    root = (
        FineTuneJobManifest if kind == "FineTuneJob" else create_model(kind, __base__=OtherManifest, spec=(spec, ...))
    )
    manifest = {"kind": kind, "spec": {}}
    *above, name = path.split(".")
    part = manifest
    for one in above:
        part = part.setdefault(one, {})
    part[name] = value
    assert said in meant([*above, name], manifest, root)


@pytest.mark.parametrize("field", ["kind", "apiVersion", "uid"])
def test_what_references_of_kubernetes_have_beside_a_name_is_told_to_be_left_out(field):
    said = meant(["spec", "modelRef", field], {"kind": "FineTuneJob"}, FineTuneJobManifest)
    assert said == "; leave it out: modelRef alone says what kind of object it names"


@pytest.mark.parametrize(
    ("provider", "path", "meant_place"),
    [
        ("huggingFace", "spec.huggingFace.nodeSelector", "spec.huggingFace.podTemplate.nodeSelector"),
        ("huggingFace", "spec.tolerations", "spec.huggingFace.podTemplate.tolerations"),
        ("openAI", "spec.nodeSelector", "spec.checkPod.podTemplate.nodeSelector"),
        ("bedrock", "spec.bedrock.imagePullSecrets", "spec.checkPod.podTemplate.imagePullSecrets"),
    ],
)
def test_of_two_places_that_of_the_connections_own_provider_is_told(provider, path, meant_place):
    manifest = {"kind": "LLMConnection", "spec": {provider: {}}}
    root = create_model("LLMConnection", __base__=OtherManifest, spec=(LLMConnectionSpec, ...))
    assert meant(path.split("."), manifest, root) == f"; here it is {meant_place}"
