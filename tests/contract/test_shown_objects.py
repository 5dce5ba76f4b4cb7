"""Objects as the API server shows them: columns, scale, what selects them, explanations."""

import json
from pathlib import Path

import pytest
import yaml

from finetune_api.manifest import Manifest
from finetune_api.names import GROUP, VERSION
from tests.cluster.errors import ClusterError
from tests.contract import statuses
from tests.contract.conftest import ROOT, Server
from tests.contract.manifests import DEPLOYMENT, changed

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (
            ("ftj", "sentiment-1"),
            {
                "NAME": "sentiment-1",
                "PHASE": "Running",
                "MODEL": "sentiment",
                "BASE": "SmolLM2-135M-Instruct",
                "METHOD": "LoRA",
                "PROGRESS": "53%",
                "LOSS": "0.412",
                "EVAL": "0.447",
                "VERSION": "3",
            },
        ),
        (
            ("ftm", "sentiment"),
            {
                "NAME": "sentiment",
                "ACTIVE": "3",
                "LATEST": "3",
                "BASE": "SmolLM2-135M-Instruct",
                "EVAL": "0.447",
                "DEPLOYMENT": "sentiment",
                "READY": "True",
            },
        ),
        (
            ("md", "sentiment"),
            {
                "NAME": "sentiment",
                "PHASE": "Ready",
                "MODEL": "sentiment",
                "VERSION": "3",
                "ENGINE": "Transformers",
                "REPLICAS": "1",
                "URL": "http://sentiment.default.svc/v1",
            },
        ),
        (("llmc", "local"), {"NAME": "local", "PROVIDER": "huggingFace", "READY": "True"}),
    ],
    ids=["jobs", "models", "deployments", "connections"],
)
def test_kubectl_get_shows_what_a_person_wants(
    reported: Server, arguments: tuple[str, str], columns: dict[str, str]
) -> None:
    heading, row = reported.kubectl("get", *arguments).splitlines()
    assert heading.split() == [*columns, "AGE"]
    assert row.split()[:-1] == list(columns.values())


@pytest.mark.parametrize(("kind", "name"), [("ftj", "sentiment-1"), ("ftm", "sentiment"), ("md", "sentiment")])
def test_wide_output_says_what_stands_in_the_way(reported: Server, kind: str, name: str) -> None:
    heading, row = reported.kubectl("get", kind, name, "-o", "wide").splitlines()
    ready = next(one for one in reported.get(kind, name)["status"]["conditions"] if one["type"] == "Ready")
    assert ready["message"]
    assert row[heading.index("MESSAGE") :].startswith(ready["message"])


def test_wide_output_says_what_a_deployment_costs_and_when_it_was_asked(reported: Server) -> None:
    heading, row = reported.kubectl("get", "md", "sentiment", "-o", "wide").splitlines()
    assert {"COST", "ASKED"} <= set(heading.split())
    assert " 1.70 " in row


def scaled(server: Server, manifest: Manifest, name: str) -> Manifest:
    """A new deployment's scale, after `kubectl scale` has set three replicas."""
    server.store(changed(manifest, "metadata.name", name))
    server.patch("md", name, {"status": statuses.DEPLOYMENT.wire()}, status=True)
    server.kubectl("scale", "md", name, "--replicas=3")
    path = f"/apis/{GROUP}/{VERSION}/namespaces/default/modeldeployments/{name}/scale"
    found: Manifest = json.loads(server.kubectl("get", "--raw", path))
    return found


@pytest.mark.parametrize("spec", [{}, {"huggingFace": {"replicas": 1, "gpus": 1}}], ids=["nothing said", "one replica"])
def test_a_server_is_scaled_and_tells_autoscalers_of_its_pods(server: Server, spec: Manifest) -> None:
    name = f"scaled-{len(spec)}"
    scale = scaled(server, {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], **spec}}, name)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": statuses.DEPLOYMENT.selector}
    assert server.get("md", name)["spec"]["huggingFace"] == spec.get("huggingFace", {}) | {
        "engine": "Auto",
        "replicas": 3,
    }


def test_what_answers_at_a_provider_is_not_scaled(server: Server) -> None:
    with pytest.raises(ClusterError, match=r"name at most one of huggingFace, azureOpenAI.*kubectl scale"):
        scaled(server, changed(DEPLOYMENT, "spec.azureOpenAI", {"capacity": 1}), "not-scaled")


@pytest.mark.parametrize(
    ("kind", "selector", "found"),
    [
        ("ftj", "spec.connectionRef.name=local,spec.modelRef.name=sentiment,status.phase=Running", True),
        ("ftj", "spec.connectionRef.name=another", False),
        ("ftj", "spec.baseModel=another/model", False),
        ("md", "spec.modelRef.name=sentiment,status.phase=Ready", True),
        ("md", "status.phase=Failed", False),
    ],
)
def test_objects_are_listed_by_what_they_name_and_how_they_are(
    reported: Server, kind: str, selector: str, found: bool
) -> None:
    assert bool(reported.kubectl("get", kind, f"--field-selector={selector}", "-o", "name")) is found


def test_the_category_lists_all_kinds(reported: Server) -> None:
    listed = reported.kubectl("get", "finetune", "-o", "name").split()
    assert {name.partition("/")[0] for name in listed} == {
        "llmconnection.finetune.dev",
        "finetunejob.finetune.dev",
        "finetunedmodel.finetune.dev",
        "modeldeployment.finetune.dev",
    }


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("ftj", "One run of fine-tuning"),
        ("ftj.spec", "FineTunedModel of the job's namespace that gets a new version"),
        ("ftj.spec.dataset", "Guardrails of a connection or gateway are not applied to them"),
        (
            "ftj.spec.hyperparameters.maxSequenceLength",
            "longer rows are truncated at the end. Default: 1024",
        ),
        ("ftj.status.failure", "What to do about it"),
        ("ftj.spec.evaluation.baselines", "Default: zeroShot."),
        ("ftm.spec.activeVersion", "change it to roll back"),
        ("ftm.spec.deletionPolicy", "the object waits for it"),
        ("md.spec.attach", "never changed"),
        ("md.spec.idle.action", "finetune.dev/wake"),
        ("md.spec.deletionPolicy", "Default: Delete; attached: Retain."),
        ("md.status.asleep", "because it received no requests"),
        ("llmc.spec.azureOpenAI.workspace", "looked up every hour"),
        ("md.spec.version", "Active follows the model's active version"),
        ("llmc.spec.namespaceSelector", "{} is every namespace, absent is none"),
    ],
)
def test_kubectl_explain_shows_the_descriptions(server: Server, path: str, says: str) -> None:
    assert says in " ".join(server.kubectl("explain", path).split())


def test_waiting_for_a_condition_works(reported: Server) -> None:
    reported.kubectl("wait", "ftm/sentiment", "--for=condition=Ready", "--timeout=5s")


def test_written_definitions_are_those_that_were_tested(server: Server) -> None:
    for path in Path(ROOT / "crds").glob("*.yaml"):
        wanted = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        assert server.get("crd", wanted["metadata"]["name"])["spec"]["versions"] == wanted["spec"]["versions"]
