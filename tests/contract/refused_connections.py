"""LLMConnections that the API server refuses."""

from tests.contract.manifests import AZURE, BEDROCK, LOCAL, OPENAI, REMOVE, SAGEMAKER, Refused

SELECTOR = "spec.namespaceSelector.matchExpressions"

CONNECTIONS: list[Refused] = [
    (LOCAL, "spec", REMOVE, ("spec: Required",)),
    (LOCAL, "spec", {}, ("exactly one provider block: huggingFace, openAI, azureOpenAI, bedrock or sageMaker",)),
    (LOCAL, "spec.openAI", OPENAI["spec"]["openAI"], ("exactly one provider block",)),
    (LOCAL, "spec.bedrock", BEDROCK["spec"]["bedrock"], ("exactly one provider block",)),
    (
        LOCAL,
        "spec.huggingFace.podTemplate",
        {"resources": {"requests": {"ephemeral-storage": "20"}}},
        ("podTemplate.resources.requests", "write the unit, such as 16Gi"),
    ),
    (
        LOCAL,
        "spec.huggingFace.podTemplate",
        {"resources": {"limits": {"cpu": "4000M"}}},
        ("podTemplate.resources.limits", "cpu: no node has so many cores", "such as 4000m"),
    ),
    (
        LOCAL,
        "spec.huggingFace.podTemplate",
        {"resources": {"limits": {"nvidia.com/gpu": "500m"}}},
        ("podTemplate.resources.limits", "write a whole number, such as nvidia.com/gpu: 1"),
    ),
    *(
        (
            LOCAL,
            "spec.huggingFace.podTemplate",
            {"resources": {part: {name: 1}}},
            (f"resources.{part}", "with a domain"),
        )
        for part, name in (("limits", "gpu"), ("requests", "storage"))
    ),
    *(
        (LOCAL, f"spec.{field}", {"team": "yes\n"}, (f"{field}", "the value of a label has letters"))
        for field in ("namespaceSelector.matchLabels", "huggingFace.podTemplate.nodeSelector")
    ),
    (LOCAL, "spec.huggingface", {}, ('unknown field "spec.huggingface"',)),
    (LOCAL, "spec.huggingFace.trainerImage", REMOVE, ("spec.huggingFace.trainerImage: Required",)),
    (LOCAL, "spec.huggingFace.artifacts", REMOVE, ("spec.huggingFace.artifacts: Required",)),
    (
        LOCAL,
        "spec.huggingFace.trainerImage",
        "registry.example.com/no such:1",
        ("trainerImage", "write an image alone"),
    ),
    *(
        (LOCAL, "spec.huggingFace.trainerImage", image, ("trainerImage", "its name in lower case"))
        for image in (
            "IMAGE_OF_THE_TRAINER",
            "REGISTRY/finetune-trainer:0.1.0",
            "ghcr.io/Team/trainer",
            "a/b:1:2",
            ":1",
            '"ghcr.io/team/trainer:1"',
        )
    ),
    (LOCAL, "spec.huggingFace.trainerImage", "ghcr.io/<org>/trainer:1", ("trainerImage", "placeholder stands for")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "s3://bucket/<team>", ("artifacts.uri", "placeholder stands for")),
    (OPENAI, "spec.openAI.baseURL", "https://${HOST}/v1", ("openAI.baseURL", "placeholder stands for")),
    (AZURE, "spec.azureOpenAI.endpoint", "https://<res>.openai.azure.com", ("endpoint", "placeholder stands for")),
    (AZURE, "spec.azureOpenAI.subscriptionID", "<subscription>", ("subscriptionID", "placeholder stands for")),
    (LOCAL, "spec.huggingFace.trainerImage", "https://ghcr.io/a/b:1", ("trainerImage", "without https://")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "hf://bucket/x", ("artifacts.uri", "write pvc://CLAIM", "gs://BUCKET")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "s3://key:x@bucket", ("artifacts.uri", "write pvc://", "s3://BUCKET")),
    *(
        (LOCAL, "spec.huggingFace.artifacts.uri", text, ("artifacts.uri", "write it without a line break, a quotation"))
        for text in (
            "s3://bucket/x ",
            "pvc://models/'a'",
            "pvc://models/a\u200bb",
            "pvc://models/a\tb",
            "s3://b-1/x\u00a0",
        )
    ),
    *(
        (LOCAL, "spec.huggingFace.artifacts.uri", text, ("artifacts.uri", "neither '?' nor '#'"))
        for text in ("pvc://models/a#1", "s3://bucket/a?versionId=1")
    ),
    (LOCAL, "spec.huggingFace.artifacts.uri", "abfs://bucket/x", ("abfs://CONTAINER@ACCOUNT.dfs.core.windows.net",)),
    (LOCAL, "spec.huggingFace.artifacts.uri", "s3://bucket/../x", ("artifacts.uri", "without it")),
    (LOCAL, "spec.huggingFace.artifacts.secretRef", {"name": "k"}, ("artifacts.secretRef are for object stores",)),
    (LOCAL, "spec.huggingFace.artifacts.endpointURL", "https://s3", ("artifacts.endpointURL and artifacts",)),
    (LOCAL, "spec.huggingFace.artifacts.uri", "pvc://m/../x", ("artifacts.uri", "may not have a '..' segment")),
    (LOCAL, "spec.huggingFace.airGapped", True, ("airGapped needs huggingFace.modelCache",)),
    (LOCAL, "spec.huggingFace.modelCache", {}, ("spec.huggingFace.modelCache.volume: Required",)),
    (LOCAL, "spec.huggingFace.imagePullPolicy", "Sometimes", ("imagePullPolicy", '"IfNotPresent"')),
    (LOCAL, "spec.huggingFace.maxRetries", 11, ("spec.huggingFace.maxRetries", "less than or equal to 10")),
    (LOCAL, "spec.huggingFace.podTemplate.queueName", "Team_Queue", ("podTemplate.queueName", "in lower case")),
    (LOCAL, "spec.huggingFace.podTemplate.queue", "x", ('unknown field "spec.huggingFace.podTemplate.queue"',)),
    (LOCAL, "spec.fineTuning.allowedModels", "meta-llama/*", ("spec.fineTuning.allowedModels", "array")),
    *(
        (LOCAL, "spec.fineTuning.allowedModels", [text], ("allowedModels[0]", "write a glob, such as meta-llama/*"))
        for text in ("meta-llama/.*", ".*", "^meta-llama/.*$", "meta-llama/* ", r"meta-llama/Llama-3\.1")
    ),
    (LOCAL, "spec.fineTuning.allowedModels", [""], ("spec.fineTuning.allowedModels[0]", "at least 1")),
    (LOCAL, "spec.fineTuning.allowedEndpoints", ["https://api*/*"], ("allowedEndpoints[0]", "such as https://HOST/*")),
    (LOCAL, SELECTOR, [{"key": "a", "operator": "in"}], ("operator", '"NotIn"', '"Exists"')),
    (LOCAL, SELECTOR, [{"key": "a", "operator": "In"}], ("matchExpressions[0]", "In and NotIn need values")),
    *(
        (LOCAL, SELECTOR, [{"key": key, "operator": "DoesNotExist"}], ("key", "the key of a label has"))
        for key in ("not tuned", "team/", "Team.example/a", "a" * 64)
    ),
    (LOCAL, SELECTOR, [], ("spec.namespaceSelector", "nothing is below matchLabels or matchExpressions")),
    (LOCAL, "spec.namespaceSelector", {"matchLabels": {}}, ("write a label with a space after its colon",)),
    (LOCAL, SELECTOR, [{"key": "a", "operator": "Exists", "values": ["b"]}], ("Exists and DoesNotExist have none",)),
    (LOCAL, "spec.checkPod", {"image": "a:1"}, ("checkPod is for providers outside of the cluster",)),
    (OPENAI, "spec.checkPod.imagePullPolicy", "Sometimes", ("spec.checkPod.imagePullPolicy", '"IfNotPresent"')),
    (OPENAI, "spec.openAI.apiKeySecretRef", REMOVE, ("spec.openAI.apiKeySecretRef: Required",)),
    (OPENAI, "spec.openAI.apiKey", "sk-123", ('unknown field "spec.openAI.apiKey"',)),
    (LOCAL, "spec.huggingFace.modelCache", {"volume": {}}, ("modelCache.volume", "at least 1")),
    (LOCAL, "spec.huggingFace.modelCache", {"volume": {"emptyDir": {}, "nfs": {}}}, ("modelCache.volume", "at most 1")),
    (OPENAI, "spec.openAI.baseURL", "https://me:secret@api.openai.com", ("baseURL", "without credentials")),
    (OPENAI, "spec.openAI.baseURL", "https://api.openai.com/v1 ", ("baseURL", "white space")),
    *(
        (
            OPENAI,
            "spec.openAI.baseURL",
            f"https://api.openai.com/v1{rest}",
            ("baseURL: ", "without credentials, queries"),
        )
        for rest in ("?api-version=1", "?key=secret", "#top")
    ),
    *(
        (OPENAI, "spec.openAI.baseURL", f"https://api.openai.com/v1/{call}", ("baseURL: ", "the root of the API"))
        for call in ("chat/completions", "chat/completions/", "completions", "responses", "fine_tuning/jobs")
    ),
    *(
        (
            AZURE,
            "spec.azureOpenAI.endpoint",
            f"https://res.openai.azure.com/openai{rest}",
            ("endpoint alone", "without /openai"),
        )
        for rest in ("", "/", "/v1/", "/deployments/x", "/deployments/x/chat/completions")
    ),
    *(
        (LOCAL, "spec.huggingFace.gpuResource", name, ("gpuResource: ", "such as nvidia.com/gpu"))
        for name in ("gpu", "nvidia", "nvidia.com/", "NVIDIA.com/gpu", "nvidia.com/gpu: 1", "")
    ),
    *(
        (OPENAI, "spec.openAI.baseURL", f"http://{host}/v1", ("baseURL", "http keeps no secret"))
        for host in ("api.openai.com", "eu.api.openai.com:80", "res.openai.azure.com")
    ),
    *(
        (OPENAI, f"spec.openAI.{field}", text, (field, "or leave the field out"))
        for field in ("organization", "project")
        for text in ("", " ", "proj_1\n")
    ),
    *(
        (AZURE, f"spec.azureOpenAI.{field}", f"http://{host}", (field, "a whole URL with https"))
        for field in ("endpoint", "authorityHost", "managementEndpoint")
        for host in ("res.openai.azure.com", "localhost.example.com", "127.example.com")
    ),
    *(
        (connection, field, f"https://host.example.com:{port}", (field, "a port is 1 to 65535"))
        for connection, field in (
            (LOCAL, "spec.huggingFace.artifacts.endpointURL"),
            (OPENAI, "spec.openAI.baseURL"),
            (AZURE, "spec.azureOpenAI.endpoint"),
            (BEDROCK, "spec.bedrock.endpoints.control"),
            (SAGEMAKER, "spec.sageMaker.endpoints.s3"),
        )
        for port in (0, 65536)
    ),
    (OPENAI, "spec.openAI.baseURL", "https://[1:2:3]/v1", ("spec.openAI.baseURL", "a whole URL")),
    (OPENAI, "spec.openAI.baseURL", "api.openai.com", ("spec.openAI.baseURL", "such as https://HOST")),
    (AZURE, "spec.azureOpenAI.endpoint", "res.openai.azure.com", ("spec.azureOpenAI.endpoint", "such as https://HOST")),
    *(
        (AZURE, "spec.azureOpenAI.subscriptionID", text, ("subscriptionID", "az account show --query id"))
        for text in ("x", "my-subscription", "{11111111-2222-3333-4444-555555555555}")
    ),
    *(
        (AZURE, f"spec.azureOpenAI.{field}", text, (field, "write the name alone"))
        for field in ("resourceGroup", "account")
        for text in ("/subscriptions/x/resourceGroups/y", "my group")
    ),
    *(
        (AZURE, "spec.azureOpenAI.workspace", {"name": "ml", "connection": "aoai", **wrong}, ("write the name alone",))
        for wrong in ({"name": "workspaces/ml"}, {"connection": "connections/aoai"})
    ),
    (AZURE, "spec.azureOpenAI.endpoint", REMOVE, ("endpoint and account, or a workspace",)),
    (AZURE, "spec.azureOpenAI.account", REMOVE, ("endpoint and account, or a workspace",)),
    (
        AZURE,
        "spec.azureOpenAI.evaluation",
        {"sku": "ProvisionedManaged"},
        ("spec.azureOpenAI.evaluation.sku", '"DeveloperTier"'),
    ),
    (AZURE, "spec.azureOpenAI.credentials", {}, ("either secretRef or workloadIdentity: true",)),
    (AZURE, "spec.azureOpenAI.credentials.workloadIdentity", True, ("either secretRef or workloadIdentity: true",)),
    (BEDROCK, "spec.bedrock.roleARN", "bedrock-finetune", ("roleARN", "arn:aws:iam::ACCOUNT:role/NAME")),
    (BEDROCK, "spec.bedrock.roleARN", "arn:aws:iam::1:user/x", ("roleARN", "arn:aws:iam::ACCOUNT:role/NAME")),
    (BEDROCK, "spec.bedrock.region", "cn-north-1", ("spec.bedrock.roleARN", "arn:aws-cn: in China's regions")),
    (BEDROCK, "spec.bedrock.region", "us-gov-west-1", ("spec.bedrock.roleARN", "arn:aws-us-gov: in those of GovCloud")),
    (BEDROCK, "spec.bedrock.roleARN", "arn:aws-cn:iam::123456789012:role/r", ("roleARN", "arn:aws: elsewhere")),
    (BEDROCK, "spec.bedrock.region", "US", ("spec.bedrock.region", "such as us-east-1")),
    (BEDROCK, "spec.bedrock.endpoints", {"runtime": "vpce.example.com"}, ("endpoints.runtime", "such as https://HOST")),
    *(
        (BEDROCK, "spec.bedrock.endpoints", {service: "http://s3.us-east-1.amazonaws.com"}, ("http keeps no secret",))
        for service in ("control", "runtime", "s3", "cloudwatch", "sts")
    ),
    (BEDROCK, "spec.bedrock.results", "Forget", ("spec.bedrock.results", '"Keep"')),
    (BEDROCK, "spec.bedrock.s3", REMOVE, ("spec.bedrock.s3: Required",)),
    (BEDROCK, "spec.bedrock.s3.bucket", "b", ("spec.bedrock.s3.bucket", "at least 3")),
    (BEDROCK, "spec.bedrock.s3.bucket", "s3://data", ("spec.bedrock.s3.bucket", "without s3://")),
    (BEDROCK, "spec.bedrock.s3.prefix", "/tuning/", ("spec.bedrock.s3.prefix", "without a slash")),
    (BEDROCK, "spec.bedrock.s3.prefix", "team/../others", ("spec.bedrock.s3.prefix", "without ..")),
    (BEDROCK, "spec.bedrock.credentials", {"podIdentity": False}, ("either secretRef or podIdentity: true",)),
    (LOCAL, "spec.sageMaker", SAGEMAKER["spec"]["sageMaker"], ("exactly one provider block",)),
    (SAGEMAKER, "spec.sageMaker.region", "us-iso-east-1", ("spec.sageMaker.roleARN", "another partition of AWS")),
    (SAGEMAKER, "spec.sageMaker.region", "US", ("spec.sageMaker.region", "such as us-east-1")),
    (SAGEMAKER, "spec.sageMaker.roleARN", "sagemaker", ("roleARN", "arn:aws:iam::ACCOUNT:role/NAME")),
    (SAGEMAKER, "spec.sageMaker.trainerImage", REMOVE, ("spec.sageMaker.trainerImage: Required",)),
    *(
        (SAGEMAKER, "spec.sageMaker.trainerImage", image, ("spec.sageMaker.trainerImage", "images of ECR in its own"))
        for image in (
            "ghcr.io/example/finetune-trainer:0.1.0-sagemaker",
            "111122223333.dkr.ecr.eu-west-1.amazonaws.com/finetune-trainer:1",
            "111122223333.dkr.ecr.us-east-1.amazonaws.com/finetune-trainer:1 ",
            "111122223333.dkr.ecr.us-east-1.amazonaws.com/<repository>:1",
            "111122223333.dkr.ecr.us-east-1.amazonaws.com/Finetune-Trainer:1",
        )
    ),
    (SAGEMAKER, "spec.sageMaker.instanceTypes", [], ("spec.sageMaker.instanceTypes", "at least 1")),
    (SAGEMAKER, "spec.sageMaker.instanceTypes", ["g5.xlarge"], ("instanceTypes[0]", "such as ml.g5.xlarge")),
    *(
        (
            SAGEMAKER,
            "spec.sageMaker.instanceTypes",
            ["ml.g5.xlarge", text],
            ("instanceTypes[1]", "such as ml.g5.xlarge"),
        )
        for text in ("ml.", "ml.G5.xlarge", "ml.g5.xlarge ")
    ),
    *(
        (SAGEMAKER, "spec.sageMaker.kmsKeyID", key, ("spec.sageMaker.kmsKeyID", "write the key's ID of 36 characters"))
        for key in ("", " ", "tuning", "alias/my key")
    ),
    (
        SAGEMAKER,
        "spec.sageMaker.kmsKeyID",
        "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        ("spec.sageMaker.kmsKeyID", "a key of another region"),
    ),
    *(
        (BEDROCK, "spec.bedrock.roleARN", f"arn:aws:iam::111122223333:role/{role}", ("roleARN", "without white space"))
        for role in ("", "tuning ", "my role", "tuning/")
    ),
    *(
        (SAGEMAKER, "spec.sageMaker.vpc", vpc, ("spec.sageMaker.vpc", "write a"))
        for vpc in (
            {"subnets": ["sg-1"], "securityGroupIDs": ["sg-1"]},
            {"subnets": ["subnet-1"], "securityGroupIDs": ["subnet-1"]},
        )
    ),
    *(
        (BEDROCK, "spec.bedrock.s3.bucket", bucket, ("spec.bedrock.s3.bucket", "not a bucket name"))
        for bucket in ("my..bucket", "10.0.0.1")
    ),
    (SAGEMAKER, "spec.sageMaker.s3.bucket", "s3://data", ("spec.sageMaker.s3.bucket", "without s3://")),
    (SAGEMAKER, "spec.sageMaker.vpc", {"subnets": []}, ("spec.sageMaker.vpc.securityGroupIDs: Required",)),
    (SAGEMAKER, "spec.sageMaker.networkIsolation", True, ("networkIsolation needs sageMaker.modelCache",)),
    (SAGEMAKER, "spec.sageMaker.spot", {"enabled": True, "maxWaitSeconds": 60}, ("write at least maxRuntimeSeconds",)),
    (SAGEMAKER, "spec.sageMaker.maxRuntimeSeconds", 5, ("maxRuntimeSeconds", "greater than or equal to 60")),
    (SAGEMAKER, "spec.sageMaker.endpoints", {"control": "vpce"}, ("endpoints.control", "such as https://HOST")),
    (SAGEMAKER, "spec.sageMaker.credentials", {}, ("either secretRef or podIdentity: true",)),
]
