"""All settings of the operator's process, read once from the environment. Contains no defaults of kinds."""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from finetune_api import RELEASE
from finetune_operator.runtime.leadership.lease_times import JITTER, LeaseTimes, are_ascending

PREFIX = "FINETUNE_"
# What Kubernetes itself adds to a pod's environment for each Service of the namespace (enableServiceLinks).
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")


class SettingsError(Exception):
    """Variables with unusable values; the message names each one."""


def _words(value: object) -> object:
    """`a, b` as ("a", "b")."""
    return tuple(part for part in (p.strip() for p in value.split(",")) if part) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """The operator's settings; each field is the variable FINETUNE_<FIELD>, an empty one counts as unset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = Field(
        "finetune-system", description="The operator's own namespace: its Lease, certificates and connection Secrets."
    )
    service_name: str = Field(
        "finetune-operator", description="The Service in front of the report server, as training pods address it."
    )
    cluster_domain: str = Field("cluster.local", description="DNS domain of the cluster, for the certificate's names.")
    pod_name: str = Field(
        default_factory=socket.gethostname, description="Name of this pod; default: the host name, which is the same."
    )
    watch_namespaces: Words = Field(
        (), description="Namespaces to look after, separated by commas; default: all of the cluster."
    )

    # A busy API server gives each request the same share of its time, and a user who applies many jobs sends some
    # sixteen at once: with as many workers new jobs keep up, and the rest is for jobs that end.
    workers: int = Field(24, ge=1, le=256, description="Reconciles that may run at once.")
    resync_seconds: float = Field(
        600, ge=10, description="Every object is looked at again after this long, with jitter, even if nothing changed."
    )
    watch_silence_seconds: float = Field(
        70,
        ge=1,
        description="A watch that says nothing for this long is opened again; the server speaks once a minute.",
    )
    reconcile_timeout_seconds: float = Field(300, ge=10, description="A reconcile is ended and repeated after this.")
    progress_write_seconds: float = Field(
        5, ge=1, description="Least seconds between two writes of a job's progress into its status."
    )
    trainer_silence_seconds: float = Field(
        900,
        ge=60,
        description="A job says so when its trainer has not reported for this long; four times as long until the first "
        "step.",
    )
    shutdown_seconds: float = Field(
        20,
        ge=1,
        description="Running reconciles may finish for this long at shutdown; less than the pod's grace period.",
    )

    kubeconfig: Path | None = Field(
        None, description="Path of a kubeconfig; default: the pod's service account, outside of pods $KUBECONFIG."
    )
    service_account: Path = Field(
        Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="Folder with the pod's token and the cluster's CA certificate, as the kubelet mounts it.",
    )
    kube_qps: float = Field(
        500,
        gt=0,
        description="Requests per second to the API server in the long run; API priority and fairness guards it.",
    )
    kube_burst: int = Field(1000, ge=1, description="Requests to the API server that may go out at once.")
    # More than the 30 s that a webhook may take: the API server's answer names the webhook that does not answer.
    kube_timeout_seconds: float = Field(35, ge=1, description="An API call without an answer fails after this.")

    lease_name: str = Field("finetune-operator", description="The Lease that the leading replica holds.")
    lease_duration_seconds: int = Field(15, ge=3, description="A leader that does not renew is replaced after this.")
    lease_renew_seconds: float = Field(10, gt=0, description="A leader that cannot renew for this long stops writing.")
    lease_retry_seconds: float = Field(2, gt=0, description="Seconds between two attempts to get or renew the Lease.")

    report_port: Port = Field(8443, description="HTTPS port for the reports of training pods.")
    probe_port: Port = Field(8080, description="HTTP port for /metrics, /healthz and /readyz.")
    report_bind: str = Field("", description="Address that the report server listens on; default: all.")
    probe_bind: str = Field("", description="Address that metrics and probes listen on; default: all.")
    report_rate: float = Field(2, gt=0, description="Reports per second that one pod may send in the long run.")
    report_burst: int = Field(10, ge=1, description="Reports that one pod may send at once.")
    report_concurrency: int = Field(64, ge=1, description="Reports that are worked on at once; more are told to wait.")
    report_connections: int = Field(2048, ge=1, description="Open connections to the report server at most.")

    upload_concurrency: int = Field(
        16, ge=1, description="Files passed on to providers at once, 4 of a connection; more are told to wait."
    )
    answer_concurrency: int = Field(
        32, ge=1, description="Questions of evaluations that are passed on to providers at once; more are told to wait."
    )
    check_image: str = Field(
        f"ghcr.io/example/finetune-trainer-check:{RELEASE}",
        description="Image of pods that check data for providers outside of the cluster; a connection may name one.",
    )
    provider_catalogue: Path | None = Field(
        None, description="JSON file with prices and dates of providers; default: none are known."
    )

    provider_poll_seconds: float = Field(
        20,
        ge=1,
        description="Between two looks at what changes at a provider: jobs that run, deployments that come and go.",
    )
    billed_idle_seconds: float = Field(
        86400,
        ge=600,
        description="A deployment at a provider that is billed without requests for this long causes a warning.",
    )

    tls_secret: str = Field(
        "finetune-operator-tls",
        description="Secret of the operator's namespace with its own CA and serving certificate.",
    )
    tls_dir: Path | None = Field(
        None, description="Folder with tls.crt, tls.key and ca.crt (cert-manager, say); default: a CA of its own."
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    @model_validator(mode="after")
    def _lease_times_fit(self) -> "Settings":
        if not are_ascending(self.lease_retry_seconds, self.lease_renew_seconds, self.lease_duration_seconds):
            raise ValueError(
                f"lease times must rise: {JITTER:g} x FINETUNE_LEASE_RETRY_SECONDS < FINETUNE_LEASE_RENEW_SECONDS"
                " < FINETUNE_LEASE_DURATION_SECONDS"
            )
        return self

    @property
    def lease_times(self) -> LeaseTimes:
        """The times of the Lease."""
        return LeaseTimes(self.lease_duration_seconds, self.lease_renew_seconds, self.lease_retry_seconds)

    @property
    def report_names(self) -> tuple[str, ...]:
        """DNS names under which training pods may reach the report server, the one for URLs first."""
        service = f"{self.service_name}.{self.namespace}.svc"
        return service, f"{service}.{self.cluster_domain}", f"{self.service_name}.{self.namespace}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Reads FINETUNE_* variables.

        Raises:
            SettingsError: a value does not fit, or a FINETUNE_ variable has no meaning; all are named.
        """
        known = {f"{PREFIX}{name.upper()}": name for name in cls.model_fields}
        given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
        unknown = sorted(name for name in set(given) - set(known) if not _SERVICE_LINK.search(name))
        if unknown:
            raise SettingsError(f"{', '.join(unknown)}: no such setting; see the settings in the chart's values")
        values: dict[str, Any] = {known[name]: value for name, value in given.items() if name in known}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_input=False, include_url=False):
        name = "".join(f"{PREFIX}{str(place).upper()}: " for place in problem["loc"][:1])
        parts.append(f"{name}{problem['msg']}")
    return "; ".join(parts)
