"""`finetune-trainer check` knows the rules between fields of connections, models and deployments."""

from collections.abc import Iterator

import pytest

from finetune_api.base import RULES
from finetune_api.crds import KINDS
from finetune_api.exit_codes import ExitCode
from finetune_api.schema import Schema, structural_schema
from finetune_trainer.__main__ import main
from finetune_trainer.job.rules_between import HOLDS

HEAD = "apiVersion: finetune.dev/v1alpha1\nkind: {}\nmetadata: {{name: a}}\nspec:\n"
DEPLOYMENT = HEAD.format("ModelDeployment") + "  modelRef: {name: a}\n"
MODEL = HEAD.format("FineTunedModel") + "  deployment:\n    template:\n"
CONNECTION = HEAD.format("LLMConnection")
LOCAL = CONNECTION + "  huggingFace:\n    trainerImage: a/b:1\n    artifacts: {uri: pvc://models}\n"
TEN_TIMES = "".join(f", x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 8))
VOLUME = LOCAL + "    modelCache: {volume: {csi: %s}}\n"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
AZURE = f"  azureOpenAI: {{{{subscriptionID: {SUBSCRIPTION}, resourceGroup: b, credentials: {{}}, {{}}}}}}\n"
AWS = "roleARN: 'arn:aws:iam::123456789012:role/x', s3: {bucket: abc}"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/finetune-trainer:1"
KEY = "123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SAGEMAKER = (
    f"  sageMaker: {{region: us-east-1, {AWS}, trainerImage: {IMAGE}, instanceTypes: [ml.g5.xlarge], credentials: "
)
GPU = "  huggingFace:\n    resources:\n      limits:\n        nvidia.com/gpu: 1\n"
OPENAI = "  openAI: {apiKeySecretRef: {name: a, key: b}}\n"


@pytest.fixture
def complaint(tmp_path, capsys):
    """What `check` says to people about a manifest that it refuses."""

    def of(manifest):
        (tmp_path / "m.yaml").write_text(manifest)
        assert main(["check", "-f", str(tmp_path / "m.yaml")]) == ExitCode.SPEC_INVALID
        return capsys.readouterr().err

    return of


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (DEPLOYMENT + "  version: '2'\n", "line 6: spec.version: version is Active or a positive number"),
        (DEPLOYMENT + "  version: active\n", "line 6: spec.version: version is Active or a positive number"),
        (DEPLOYMENT + "  version: 0\n", "line 6: spec.version: version is Active or a positive number"),
        (
            DEPLOYMENT.replace("modelRef: {name: a}", "modelRef: {name: A.b}"),
            "line 5: spec.modelRef.name: modelRef.name becomes",
        ),
        (DEPLOYMENT + "  bedrock: {}\n  huggingFace: {}\n", "line 4: spec: name at most one of huggingFace"),
        (DEPLOYMENT + "  huggingFace: {}\n  idle: {action: Delete}\n", "line 7: spec.idle.action: idle.action Delete"),
        (DEPLOYMENT + "  bedrock: {}\n  idle: {action: ScaleToZero}\n", "line 7: spec.idle.action: idle.action Scale"),
        (DEPLOYMENT + "  attach: {id: x}\n  bedrock: {}\n", "line 6: spec.attach: attach names a cloud deployment"),
        (DEPLOYMENT + "  attach: {id: x}\n  idle: {action: Delete}\n", "line 7: spec.idle.action: an attached deploy"),
        (DEPLOYMENT + "  bedrock: {type: ProvisionedThroughput}\n", "line 6: spec.bedrock: type ProvisionedThroughput"),
        (DEPLOYMENT + "  bedrock: {modelUnits: 1}\n", "line 6: spec.bedrock: type OnDemand is billed by tokens"),
        (
            DEPLOYMENT + GPU + "        cpu: 0.5\n",
            "line 10: spec.huggingFace.resources.limits.cpu: a fraction needs quotes or the unit m: write ",
        ),
        (
            DEPLOYMENT + GPU + "        memory: 10000000000000000000\n",
            "line 10: spec.huggingFace.resources.limits.memory: so large a number needs a unit, such as 16Gi",
        ),
        (
            DEPLOYMENT + GPU + "        memory: 16GB\n",
            "line 10: spec.huggingFace.resources.limits.memory: write a quantity such as 2, 500m or 16Gi",
        ),
        (
            DEPLOYMENT + "  huggingFace: {resources: {requests: {ephemeral-storage: 20}}}\n",
            "spec.huggingFace.resources.requests: memory and ephemeral-storage: a number alone is bytes",
        ),
        *(
            (
                DEPLOYMENT + f"  huggingFace: {{resources: {{limits: {{nvidia.com/gpu: {amount}}}}}}}\n",
                "what a device plugin hands out is counted: write a whole number",
            )
            for amount in ("0.5", "500m", "'0.5'")
        ),
        *(
            (
                DEPLOYMENT + f"  huggingFace: {{resources: {{requests: {{nvidia.com/gpu: 1}}{limits}}}}}\n",
                "spec.huggingFace.resources.requests: devices and huge pages are asked for in limits",
            )
            for limits in ("", ", limits: {nvidia.com/gpu: 2}")
        ),
        (
            DEPLOYMENT + "  huggingFace: {resources: {requests: {cpu: 4000M}}}\n",
            "spec.huggingFace.resources.requests: cpu: no node has so many cores",
        ),
        (
            DEPLOYMENT + "  huggingFace: {resources: {limits: {cpu: 1}, requests: {cpu: 1500m}}}\n",
            "spec.huggingFace.resources.requests: requests may not be greater than limits",
        ),
        (
            MODEL + "      bedrock: {}\n      sageMaker: {instanceType: ml.g5.xlarge}\n",
            "line 6: spec.deployment.template: name",
        ),
        (
            MODEL + "      idle: {action: Delete}\n      huggingFace: {}\n",
            "line 7: spec.deployment.template.idle.action",
        ),
        (MODEL + "      bedrock: {commitment: OneMonth}\n", "line 7: spec.deployment.template.bedrock: type OnDemand"),
        (CONNECTION + "  fineTuning: {}\n", "line 4: spec: spec needs exactly one provider block"),
        (VOLUME % "&v {driver: a, volumeAttributes: {x: *v}}", "line 8: an anchor stands for what it is within"),
        (VOLUME % f"{{x0: &x0 [a]{TEN_TIMES}}}", "line 8: its aliases make too much of it"),
        (LOCAL + "    airGapped: true\n", "line 8: spec.huggingFace.airGapped: huggingFace.airGapped needs"),
        (LOCAL + "  checkPod: {}\n", "line 8: spec.checkPod: checkPod is for providers outside of the cluster"),
        (LOCAL.replace("pvc://", "/mnt/"), "line 7: spec.huggingFace.artifacts.uri: write pvc://CLAIM"),
        (
            LOCAL.replace("models", "m/../x"),
            "line 7: spec.huggingFace.artifacts.uri: a path may not have a '..'",
        ),
        (
            LOCAL.replace("models", "m, secretRef: {name: a}"),
            "line 7: spec.huggingFace.artifacts: artifacts.endpointURL",
        ),
        (
            CONNECTION + "  namespaceSelector:\n    matchExpressions:\n    - {key: a, operator: In}\n" + OPENAI,
            "line 7: spec.namespaceSelector.matchExpressions[0]: In and NotIn need values",
        ),
        (
            CONNECTION + "  namespaceSelector: {matchLabels: {finetune: }}\n" + OPENAI,
            "line 5: spec.namespaceSelector: nothing is below matchLabels or matchExpressions, which would be every",
        ),
        (CONNECTION + AZURE.format("{secretRef: {name: a}}", "account: a"), "spec.azureOpenAI: azureOpenAI needs"),
        (
            CONNECTION + AZURE.format("{}", "account: a, endpoint: https://a"),
            "credentials are either secretRef or work",
        ),
        (
            CONNECTION + f"  bedrock: {{region: cn-north-1, {AWS}, credentials: {{podIdentity: true}}}}\n",
            "roleARN is of",
        ),
        (
            CONNECTION + SAGEMAKER.replace("ecr.us-east-1", "ecr.eu-west-1") + "{podIdentity: true}}\n",
            "line 5: spec.sageMaker.trainerImage: SageMaker runs images of ECR in its own region alone",
        ),
        (CONNECTION + SAGEMAKER + "{podIdentity: false}}\n", "credentials are either secretRef or podIdentity: true"),
        (CONNECTION + SAGEMAKER + "{podIdentity: true}, networkIsolation: true}\n", "sageMaker.networkIsolation needs"),
        (
            CONNECTION + SAGEMAKER + f"{{podIdentity: true}}, kmsKeyID: 'arn:aws:kms:eu-west-1:{KEY}'}}\n",
            "line 5: spec.sageMaker.kmsKeyID: sageMaker.kmsKeyID is a key of another region than the connection's",
        ),
        (
            CONNECTION + SAGEMAKER + "{podIdentity: true}, spot: {enabled: true, maxWaitSeconds: 60}}\n",
            "line 5: spec.sageMaker.spot.maxWaitSeconds: sageMaker.spot.maxWaitSeconds counts training and waiting",
        ),
    ],
)
def test_a_broken_rule_between_fields_is_told_as_the_api_server_tells_it(complaint, manifest, said):
    assert said in complaint(manifest)


def test_all_broken_rules_are_told_at_once(complaint):
    said = complaint(DEPLOYMENT + "  version: active\n  attach: {id: x}\n  bedrock: {}\n")
    assert "spec.version: " in said
    assert "spec.attach: " in said


def test_what_kubernetes_itself_counts_is_no_device(complaint):
    resources = "  huggingFace: {resources: {requests: {kubernetes.io/batch-cpu: 1000}}}\n"
    assert "resources" not in complaint(DEPLOYMENT + "  version: active\n" + resources)


def told(schema: Schema) -> Iterator[tuple[str, str]]:
    """Expression and message of every rule in a schema."""
    yield from ((rule["rule"], rule["message"]) for rule in schema.get(RULES, ()))
    parts = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for part in parts:
        yield from told(part) if isinstance(part, dict) else ()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.kind != "FineTuneJob"], ids=lambda kind: kind.kind)
def test_every_rule_of_the_definitions_is_known(kind):
    of_one_text = ("self.matches(r'", "!self.matches(r'")  # a pattern of a field, which its model has too
    rules = [one for one in told(structural_schema(kind.spec)) if not one[0].startswith(of_one_text)]
    unknown = [message for rule, message in rules if "oldSelf" not in rule and not any(map(message.startswith, HOLDS))]
    assert not unknown


def test_nothing_is_known_that_no_definition_says():
    messages = [message for kind in KINDS for _, message in told(structural_schema(kind.spec))]
    assert [begins for begins in HOLDS if not any(message.startswith(begins) for message in messages)] == []
