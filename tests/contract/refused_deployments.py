"""ModelDeployments that the API server refuses."""

from tests.contract.manifests import DEPLOYMENT, REMOVE, Refused

LIMITS = "spec.huggingFace.resources.limits"

DEPLOYMENTS: list[Refused] = [
    (DEPLOYMENT, "metadata.name", "a.b", ("metadata.name of a ModelDeployment becomes the name of a Service",)),
    (DEPLOYMENT, "spec.modelRef", REMOVE, ("spec.modelRef: Required",)),
    (DEPLOYMENT, "spec.modelRef.name", "A", ("modelRef.name", "at most 63 of a-z, 0-9 and -")),
    (DEPLOYMENT, "spec.version", "active", ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", "2", ("version is Active or a positive number", "a number without quotes")),
    (DEPLOYMENT, "spec.version", "3", ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", 0, ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", -1, ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", 1.5, ("spec.version", "integer,string")),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "huggingFace": {}, "bedrock": {}},
        ("at most one of huggingFace",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "huggingFace": {}, "attach": {"id": "x"}},
        ("attach names a cloud deployment that exists; remove huggingFace",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "azureOpenAI": {}},
        ("attach names a cloud deployment that exists",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "idle": {"action": "Delete"}},
        ("an attached deployment is never stopped by the operator",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "deletionPolicy": "delete"},
        ("spec.deletionPolicy", '"Delete"', '"Retain"'),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "deletionpolicy": "Retain"},
        ('unknown field "spec.deletionpolicy"',),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "huggingFace": {}, "idle": {"action": "Delete"}},
        ("a server on this cluster is stopped with ScaleToZero",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "azureOpenAI": {}, "idle": {"action": "ScaleToZero"}},
        ("a deployment at a provider is ended with Delete",),
    ),
    (DEPLOYMENT, "spec.attach.id", "", ("spec.attach.id", "at least 1")),
    *(
        (DEPLOYMENT, "spec.attach.id", text, ("spec.attach.id", "write the deployment's name alone"))
        for text in (
            " ",
            "by hand",
            "arn:aws:sagemaker:us-east-1:111122223333:endpoint/x",
            "https://res.openai.azure.com/x",
        )
    ),
    (DEPLOYMENT, "spec.deletionPolicy", "Keep", ("spec.deletionPolicy", '"Delete"', '"Retain"')),
    (DEPLOYMENT, "spec.idle.afterSeconds", 5, ("spec.idle.afterSeconds", "greater than or equal to 60")),
    (DEPLOYMENT, "spec.idle.action", "Stop", ("spec.idle.action", '"ScaleToZero"')),
    (DEPLOYMENT, "spec.huggingFace.engine", "vllm", ("spec.huggingFace.engine", '"vLLM"', '"Transformers"')),
    (DEPLOYMENT, "spec.huggingFace.replicas", -1, ("spec.huggingFace.replicas", "greater than or equal to 0")),
    (DEPLOYMENT, LIMITS, {"gpu": 1}, ("limits", "with a domain, such as nvidia.com/gpu: 1")),
    (DEPLOYMENT, LIMITS, {"memory": "lots"}, ("limits[memory]", "write a quantity")),
    (DEPLOYMENT, LIMITS, {"memory": 4, "cpu": 2}, ("limits", "memory and ephemeral-storage", "write the unit")),
    (
        DEPLOYMENT,
        "spec.huggingFace.resources",
        {"limits": {"cpu": 1, "memory": "2Gi"}, "requests": {"cpu": "1500m", "memory": "1Gi"}},
        ("spec.huggingFace.resources.requests", "may not be greater than limits"),
    ),
    *(
        (DEPLOYMENT, "spec.huggingFace.resources", resources, ("resources.requests", "asked for in limits"))
        for resources in (
            {"requests": {"nvidia.com/gpu": 1}},
            {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}},
            {"requests": {"hugepages-2Mi": "4Mi"}, "limits": {"cpu": 1}},
        )
    ),
    (DEPLOYMENT, LIMITS, {f"r{i}": 1 for i in range(17)}, ("limits", "at most 16")),
    (DEPLOYMENT, "spec.azureOpenAI.sku", "Basic", ("spec.azureOpenAI.sku", '"GlobalStandard"')),
    *(
        (DEPLOYMENT, "spec.azureOpenAI.name", name, ("spec.azureOpenAI.name", "write letters, digits, -, _ and ."))
        for name in ("my deployment", "mine!", "-mine", "größer")
    ),
    (DEPLOYMENT, "spec.bedrock.type", "ProvisionedThroughput", ("spell out modelUnits and commitment",)),
    (DEPLOYMENT, "spec.bedrock.modelUnits", 2, ("spec.bedrock", "write type: ProvisionedThroughput")),
    (DEPLOYMENT, "spec.bedrock.commitment", "OneMonth", ("spec.bedrock", "write type: ProvisionedThroughput")),
    (DEPLOYMENT, "spec.bedrock.commitment", "TwoMonths", ("spec.bedrock.commitment", '"OneMonth"')),
    (DEPLOYMENT, "spec.sageMaker", {}, ("spec.sageMaker.instanceType: Required",)),
    (DEPLOYMENT, "spec.sageMaker", {"instanceType": "g5.xlarge"}, ("sageMaker.instanceType", "such as ml.g5.xlarge")),
    (DEPLOYMENT, "spec.sageMaker", {"instanceType": "ml.g5.xlarge", "instances": 0}, ("instances", "equal to 1")),
    (DEPLOYMENT, "spec.replicas", 2, ('unknown field "spec.replicas"',)),
]
