"""AWS's blocks of an LLMConnection: Bedrock, SageMaker, and what both need."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, CloudUrl, Never, ObjectRef, rules, shaped

Region = Annotated[
    str, Field(max_length=32), shaped("^[a-z]{2,4}(-[a-z]+)+-[0-9]+$", "write a region, such as us-east-1")
]
COMMERCIAL = "aws"
"""The partition of most regions."""

RoleArn = Annotated[
    str,
    Field(max_length=2048),
    shaped(
        "^arn:aws[a-z-]*:iam::[0-9]{12}:role/([!-~]+/)?[A-Za-z0-9_+=,.@-]+$",
        "write the role's ARN: arn:aws:iam::ACCOUNT:role/NAME, as `aws iam get-role --role-name NAME` shows it, "
        "without white space",
    ),
]

InstanceType = Annotated[
    str,
    Field(max_length=64),
    shaped("^ml[.][a-z0-9-]+[.][a-z0-9-]+$", "write a type such as ml.g5.xlarge, in lower case, without white space"),
]
"""SageMaker adds types every month, so only their form is checked."""

_KEY_ID = "[a-zA-Z0-9-]{36}"
_KEY_ALIAS = "alias/[a-zA-Z0-9/_-]+"
KmsKey = Annotated[
    str,
    Field(max_length=2048),
    shaped(
        f"^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{{12}}:(key/{_KEY_ID}|{_KEY_ALIAS})|{_KEY_ID}|{_KEY_ALIAS})$",
        "write the key's ID of 36 characters, its ARN, alias/NAME or the alias's ARN, as `aws kms list-aliases` shows "
        "them, or leave the field out",
    ),
]


_PARTITIONS = {
    "cn-": ("aws-cn", "amazonaws.com.cn"),
    "us-gov-": ("aws-us-gov", "amazonaws.com"),
    "us-iso-": ("aws-iso", "c2s.ic.gov"),
    "us-isob-": ("aws-iso-b", "sc2s.sgov.gov"),
    "eu-isoe-": ("aws-iso-e", "cloud.adc-e.uk"),
    "us-isof-": ("aws-iso-f", "csp.hci.ic.gov"),
    "eusc-": ("aws-eusc", "amazonaws.eu"),
    "": (COMMERCIAL, "amazonaws.com"),
}
"""By prefix of the region: the partition's name in ARNs, and the domain of its public service addresses."""


def partition_of(region: str) -> str:
    """The partition of a region. Accounts, roles, buckets and prices of one partition do not exist in another."""
    return next(name for begins, (name, _) in _PARTITIONS.items() if region.startswith(begins))


def domain_of(region: str) -> str:
    """The domain of the public addresses of a region's services."""
    return next(domain for begins, (_, domain) in _PARTITIONS.items() if region.startswith(begins))


def _role_rule() -> tuple[str, str, str]:
    """CEL: the role is of the region's partition. For a text that is no ARN, only the field's own pattern reports."""
    of_others = (
        f"self.region.startsWith('{begins}') ? self.roleARN.startsWith('arn:{name}:')"
        for begins, (name, _) in _PARTITIONS.items()
        if begins
    )
    right = " : ".join([*of_others, f"self.roleARN.startsWith('arn:{COMMERCIAL}:')"])
    rule = f"!self.roleARN.startsWith('arn:') || ({right})"
    message = (
        "roleARN is of another partition of AWS than region: it begins with arn:aws-cn: in China's regions, with "
        "arn:aws-us-gov: in those of GovCloud, and with arn:aws: elsewhere"
    )
    return rule, message, ".roleARN"


_NO_BUCKET = Never(
    "[.][.]|^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$",
    "not a bucket name: it must not contain two adjacent dots or be an IP address",
)
"""What no S3 service accepts, AWS's or another."""

_LETTER = "0-9A-Za-z!_*()-"
_SEGMENT = f"[.]*[{_LETTER}][.{_LETTER}]*"
"""A segment of a key in S3, with the characters that Bedrock allows. Not only dots, as `..` leads upwards."""


class AwsCredentials(ApiModel):
    """Access key or pod identity."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.secretRef) != (has(self.podIdentity) && self.podIdentity)",
                "credentials are either secretRef or podIdentity: true",
            )
        )
    )
    secret_ref: ObjectRef | None = Field(
        None, description="Secret of the operator's namespace with accessKeyID and secretAccessKey."
    )
    pod_identity: bool | None = Field(
        None,
        description="Use the identity of the operator's pod: EKS Pod Identity, or an IAM role of its service account. "
        "Absent: secretRef has the keys.",
    )


class S3Location(ApiModel):
    """A place in S3."""

    bucket: Annotated[
        str,
        Field(min_length=3, max_length=63),
        shaped(
            "^[a-z0-9][a-z0-9.-]*[a-z0-9]$",
            "write the bucket's name alone (a-z, 0-9, - and .), without s3:// and a path",
        ),
        _NO_BUCKET,
    ] = Field(description="Bucket, in the connection's region.")
    prefix: (
        Annotated[
            str,
            Field(max_length=256),
            shaped(
                f"^{_SEGMENT}(/{_SEGMENT})*$",
                "write a path such as team/tuning, without a slash at its beginning and end, and without ..",
            ),
        ]
        | None
    ) = Field(
        None,
        description="Path in the bucket, for example team/tuning: everything that belongs to the connection, or in "
        "modelCache all base models, is below it. Default: the whole bucket.",
    )


_AWS_OWN = "Default: AWS's own of the region."


class AwsEndpoints(ApiModel):
    """Addresses of AWS's services, for private endpoints."""

    service: ClassVar[str]
    """boto3's name of the service that tunes; that of the runtime service is derived from it."""

    control: CloudUrl | None = Field(None, description=f"Endpoint of the service that trains and deploys. {_AWS_OWN}")
    runtime: CloudUrl | None = Field(
        None, description=f"Endpoint of its runtime service, which answers requests. {_AWS_OWN}"
    )
    s3: CloudUrl | None = Field(None, alias="s3", description=f"Endpoint of S3, with path-style addresses. {_AWS_OWN}")
    cloudwatch: CloudUrl | None = Field(
        None, description=f"Endpoint of CloudWatch, which knows when deployments were last used. {_AWS_OWN}"
    )
    sts: CloudUrl | None = Field(
        None,
        alias="sts",
        description="Endpoint of STS, which identifies the account of the credentials. Default: AWS's own of the "
        "region; if other endpoints are set and this is not, the account is not checked.",
    )

    def by_service(self) -> dict[str, str]:
        """The endpoints that are set, by boto3's names of the services."""
        found = {
            self.service: self.control,
            f"{self.service}-runtime": self.runtime,
            "s3": self.s3,
            "cloudwatch": self.cloudwatch,
            "sts": self.sts,
        }
        return {service: url for service, url in found.items() if url is not None}


class BedrockEndpoints(AwsEndpoints):
    """Addresses of bedrock, bedrock-runtime and what they need, for private endpoints."""

    service = "bedrock"


class Bedrock(ApiModel):
    """AWS Bedrock model customization."""

    model_config = ConfigDict(json_schema_extra=rules(_role_rule()))
    region: Region = Field(
        description="AWS region of the models, the bucket and the deployments, for example us-east-1."
    )
    role_arn: RoleArn = Field(
        description="ARN of the role that Bedrock assumes to read the data and write the results, for example "
        "arn:aws:iam::123456789012:role/NAME."
    )
    s3: S3Location = Field(description="Bucket through which data and results pass.")
    credentials: AwsCredentials = Field(description="Credentials of the operator; exactly one field.")
    endpoints: BedrockEndpoints | None = Field(
        None, description="Private endpoints of AWS services. Default: the public ones."
    )
    results: Literal["Delete", "Keep"] = Field(
        "Delete",
        description="What happens to the metrics that Bedrock writes to S3 once they are in status. Keep: they are "
        "kept as long as the tuned model. The training data are always deleted when the job has ended.",
    )

    @property
    def runtime_url(self) -> str:
        """The URL for requests to deployed models."""
        private = self.endpoints.runtime if self.endpoints else None
        return private or f"https://bedrock-runtime.{self.region}.{domain_of(self.region)}"


class SageMakerSpot(ApiModel):
    """Spare capacity: cheaper, but it can be reclaimed at any time. A job then resumes from its last checkpoint."""

    enabled: bool = Field(False, description="Train on spot instances.")
    max_wait_seconds: Annotated[int, Field(ge=1, le=2419200)] = Field(
        172800, description="Seconds that a job may take in total, including waiting for instances."
    )


_SubnetID = Annotated[
    str, Field(max_length=32), shaped("^subnet-[0-9A-Za-z-]+$", "write a subnet's ID, such as subnet-0a1b2c3d")
]
_SecurityGroupID = Annotated[
    str, Field(max_length=32), shaped("^sg-[0-9A-Za-z-]+$", "write a security group's ID, such as sg-0a1b2c3d")
]


class SageMakerVpc(ApiModel):
    """The network of training and serving containers."""

    subnets: Annotated[list[_SubnetID], Field(min_length=1, max_length=16)] = Field(
        description="IDs of its subnets, for example subnet-0a1b2c3d."
    )
    security_group_ids: Annotated[list[_SecurityGroupID], Field(min_length=1, max_length=5)] = Field(
        alias="securityGroupIDs", description="IDs of its security groups, for example sg-0a1b2c3d."
    )


class SageMakerEndpoints(AwsEndpoints):
    """Addresses of sagemaker, sagemaker-runtime and what they need, for private endpoints."""

    service = "sagemaker"


class SageMaker(ApiModel):
    """Amazon SageMaker: training jobs and endpoints with the trainer image."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _role_rule(),
            (
                "self.trainerImage.matches('^[0-9]{12}[.]dkr[.-]ecr(-fips)?[.]' + self.region + "
                "'[.][a-z0-9.:-]+/[a-z0-9][-a-z0-9._/]*(:[A-Za-z0-9_.-]+)?(@sha256:[0-9a-f]+)?$')",
                "SageMaker runs images of ECR in its own region alone: write "
                "ACCOUNT.dkr.ecr.REGION.amazonaws.com/finetune-trainer:TAG, with the connection's region",
                ".trainerImage",
            ),
            (
                "!has(self.kmsKeyID) || !self.kmsKeyID.startsWith('arn:') || "
                "self.kmsKeyID.contains(':kms:' + self.region + ':')",
                "sageMaker.kmsKeyID is a key of another region than the connection's, in which its bucket is: write "
                "one of that region",
                ".kmsKeyID",
            ),
            (
                "!self.spot.enabled || self.spot.maxWaitSeconds >= self.maxRuntimeSeconds",
                "sageMaker.spot.maxWaitSeconds counts training and waiting: write at least maxRuntimeSeconds",
                ".spot.maxWaitSeconds",
            ),
            (
                "!self.networkIsolation || has(self.modelCache)",
                "sageMaker.networkIsolation needs sageMaker.modelCache: base models must come from somewhere",
                ".networkIsolation",
            ),
        )
    )
    region: Region = Field(description="AWS region of the instances and the bucket, for example us-east-1.")
    role_arn: RoleArn = Field(
        description="ARN of the containers' IAM role, which reads data and base models, and writes results, for "
        "example arn:aws:iam::123456789012:role/NAME."
    )
    trainer_image: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        description="The trainer's image for SageMaker, in ECR of the same region: "
        "ACCOUNT.dkr.ecr.REGION.amazonaws.com/finetune-trainer:TAG."
    )
    s3: S3Location = Field(alias="s3", description="Bucket through which data and models pass.")
    instance_types: Annotated[list[InstanceType], Field(min_length=1, max_length=16)] = Field(
        description="Instance types that jobs may use, for example ml.g5.xlarge; the first is the default. "
        "All GPUs of an instance train."
    )
    volume_size: Annotated[int, Field(ge=1, le=16384)] = Field(
        100, description="Disk size of an instance in GiB, for base model, data, checkpoints and artifact."
    )
    max_runtime_seconds: Annotated[int, Field(ge=60, le=2419200)] = Field(
        86400, description="Seconds after which SageMaker stops a job that has no activeDeadlineSeconds."
    )
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        3,
        description="Number of retries when SageMaker has no capacity or takes an instance away, or when the training "
        "runs out of memory or cannot use its GPU.",
    )
    spot: SageMakerSpot = Field(SageMakerSpot(), description="Spot instances.")
    vpc: SageMakerVpc | None = Field(None, description="VPC of the containers. Default: SageMaker's own network.")
    kms_key_id: KmsKey | None = Field(
        None,
        alias="kmsKeyID",
        description="ID, alias (alias/NAME) or ARN of the KMS key that encrypts models in S3, in the connection's "
        "region. Default: the bucket's own encryption.",
    )
    network_isolation: bool = Field(
        False, description="Whether containers are isolated from all networks; base models must then be in modelCache."
    )
    model_cache: S3Location | None = Field(
        None,
        description="Base models in S3, each in a folder of its name below the prefix. Default: the Hugging Face hub.",
    )
    trust_remote_code: bool = Field(
        False, description="Whether base models may run Python code that they bring. It runs with the role's rights."
    )
    endpoints: SageMakerEndpoints | None = Field(
        None, description="Private endpoints of AWS services. Default: the public ones."
    )
    credentials: AwsCredentials = Field(description="Credentials of the operator; exactly one field.")

    @property
    def runtime_url(self) -> str:
        """The URL for requests to endpoints."""
        private = self.endpoints.runtime if self.endpoints else None
        return private or f"https://runtime.sagemaker.{self.region}.{domain_of(self.region)}"
