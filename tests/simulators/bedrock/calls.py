"""Bedrock's operations: botocore's parameters in, its answers out."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tests.simulators.aws.pages import page
from tests.simulators.aws.protocol import Operation
from tests.simulators.bedrock.account import Account, CustomModel, Deployment, Job, Throughput, missing
from tests.simulators.bedrock.customization import Customization
from tests.simulators.bedrock.serving import Serving
from tests.simulators.bedrock.settings import MODELS

T = TypeVar("T", Job, CustomModel, Deployment, Throughput)
Asked = dict[str, Any]


class Calls:
    """The operations of the services bedrock and bedrock-runtime."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._customization, self._serving = Customization(account), Serving(account)

    def control(self) -> dict[str, Operation]:
        """Operations of the service bedrock."""
        return {
            "CreateModelCustomizationJob": self.create_job,
            "GetModelCustomizationJob": self.get_job,
            "ListModelCustomizationJobs": self.list_jobs,
            "StopModelCustomizationJob": self.stop_job,
            "GetCustomModel": self.get_model,
            "ListCustomModels": self.list_models,
            "DeleteCustomModel": self.delete_model,
            "CreateCustomModelDeployment": self.create_deployment,
            "GetCustomModelDeployment": self.get_deployment,
            "ListCustomModelDeployments": self.list_deployments,
            "UpdateCustomModelDeployment": self.update_deployment,
            "DeleteCustomModelDeployment": self.delete_deployment,
            "CreateProvisionedModelThroughput": self.create_throughput,
            "GetProvisionedModelThroughput": self.get_throughput,
            "ListProvisionedModelThroughputs": self.list_throughputs,
            "DeleteProvisionedModelThroughput": self.delete_throughput,
            "ListTagsForResource": self.list_tags,
            "GetFoundationModel": self.get_base_model,
        }

    def runtime(self) -> dict[str, Operation]:
        """Operations of the service bedrock-runtime."""
        return {"Converse": self._serving.converse}

    def create_job(self, asked: Asked) -> Asked:
        return {"jobArn": self._account.once(asked, lambda: self._customization.create(asked))}

    def get_job(self, asked: Asked) -> Asked:
        job = self._job(asked)
        names = ("jobName", "roleArn", "trainingDataConfig", "outputDataConfig")
        shown = {name: job.request[name] for name in names} | {
            "jobArn": job.arn, "outputModelName": job.request["customModelName"], "status": job.status,
            "statusDetails": _phases(job), "creationTime": job.created_at, "lastModifiedTime": job.changed_at,
            "baseModelArn": self._account.base_arn(job.base), "customizationType": "FINE_TUNING",
            "validationDataConfig": job.request.get("validationDataConfig", {"validators": []}),
            "hyperParameters": job.request.get("hyperParameters", {}),
        }  # fmt: skip
        optional = {"endTime": job.ended_at, "failureMessage": job.failure, "outputModelArn": job.model_arn,
                    "clientRequestToken": job.request.get("clientRequestToken")}  # fmt: skip
        if job.status == "Completed":
            optional |= _metrics(job)
        return shown | _present(optional)

    def list_jobs(self, asked: Asked) -> Asked:
        found = self._listed(self._account.jobs.values(), asked, lambda job: job.request["jobName"])
        found = [job for job in found if asked.get("statusEquals", job.status) == job.status]
        return self._page("modelCustomizationJobSummaries", [self._job_summary(job) for job in found], asked)

    def _job_summary(self, job: Job) -> Asked:
        shown = {"jobArn": job.arn, "jobName": job.request["jobName"], "baseModelArn": self._account.base_arn(job.base),
                 "status": job.status, "statusDetails": _phases(job), "creationTime": job.created_at,
                 "lastModifiedTime": job.changed_at, "customModelName": job.request["customModelName"],
                 "customizationType": "FINE_TUNING"}  # fmt: skip
        return shown | _present({"endTime": job.ended_at, "customModelArn": job.model_arn})

    def stop_job(self, asked: Asked) -> Asked:
        self._customization.stop(self._job(asked))
        return {}

    def get_model(self, asked: Asked) -> Asked:
        model = self._model(asked)
        request = model.job.request
        return {"modelArn": model.arn, "modelName": model.name, "jobName": request["jobName"], "jobArn": model.job.arn,
                "baseModelArn": self._account.base_arn(model.job.base), "customizationType": "FINE_TUNING",
                "trainingDataConfig": request["trainingDataConfig"], "outputDataConfig": request["outputDataConfig"],
                "hyperParameters": request.get("hyperParameters", {}), "creationTime": model.created_at,
                "modelStatus": "Active", **_metrics(model.job)}  # fmt: skip

    def list_models(self, asked: Asked) -> Asked:
        found = self._listed(self._account.models.values(), asked, lambda model: model.name)
        shown = [{"modelArn": model.arn, "modelName": model.name, "creationTime": model.created_at,
                  "baseModelArn": self._account.base_arn(model.job.base), "modelStatus": "Active",
                  "baseModelName": MODELS[model.job.base].name, "ownerAccountId": self._account.settings.account,
                  "customizationType": "FINE_TUNING"} for model in found]  # fmt: skip
        return self._page("modelSummaries", shown, asked)

    def delete_model(self, asked: Asked) -> Asked:
        self._serving.delete_model(self._model(asked))
        return {}

    def create_deployment(self, asked: Asked) -> Asked:
        return {"customModelDeploymentArn": self._account.once(asked, lambda: self._serving.deploy(asked))}

    def get_deployment(self, asked: Asked) -> Asked:
        found = self._deployment(asked)
        shown = {"customModelDeploymentArn": found.arn, "modelDeploymentName": found.name, "modelArn": found.model_arn,
                 "createdAt": found.created_at, "status": found.status}  # fmt: skip
        return shown | _present({"description": found.description, "failureMessage": found.failure,
                                 "updateDetails": found.update, "lastUpdatedAt": found.updated_at})  # fmt: skip

    def list_deployments(self, asked: Asked) -> Asked:
        found = self._listed(self._account.deployments.values(), asked, lambda deployment: deployment.name)
        found = [item for item in found if asked.get("modelArnEquals", item.model_arn) == item.model_arn
                 and asked.get("statusEquals", item.status) == item.status]  # fmt: skip
        shown = [{"customModelDeploymentArn": item.arn, "customModelDeploymentName": item.name, "status": item.status,
                  "modelArn": item.model_arn, "createdAt": item.created_at} for item in found]  # fmt: skip
        return self._page("modelDeploymentSummaries", shown, asked)

    def update_deployment(self, asked: Asked) -> Asked:
        found = self._deployment(asked)
        self._serving.change(found, asked["modelArn"])
        return {"customModelDeploymentArn": found.arn}

    def delete_deployment(self, asked: Asked) -> Asked:
        self._serving.undeploy(self._deployment(asked))
        return {}

    def create_throughput(self, asked: Asked) -> Asked:
        return {"provisionedModelArn": self._account.once(asked, lambda: self._serving.provision(asked))}

    def get_throughput(self, asked: Asked) -> Asked:
        return self._throughput_shown(self._throughput(asked))

    def _throughput_shown(self, found: Throughput) -> Asked:
        shown = {"provisionedModelName": found.name, "provisionedModelArn": found.arn, "modelUnits": found.units,
                 "desiredModelUnits": found.units, "modelArn": found.model_arn, "desiredModelArn": found.model_arn,
                 "foundationModelArn": self._account.base_arn(found.base), "status": found.status,
                 "creationTime": found.created_at, "lastModifiedTime": found.changed_at}  # fmt: skip
        return shown | _present({"commitmentDuration": found.commitment, "commitmentExpirationTime": found.bound_until})

    def list_throughputs(self, asked: Asked) -> Asked:
        found = self._listed(self._account.throughputs.values(), asked, lambda throughput: throughput.name)
        found = [item for item in found if asked.get("modelArnEquals", item.model_arn) == item.model_arn
                 and asked.get("statusEquals", item.status) == item.status]  # fmt: skip
        return self._page("provisionedModelSummaries", [self._throughput_shown(item) for item in found], asked)

    def delete_throughput(self, asked: Asked) -> Asked:
        self._serving.release(self._throughput(asked))
        return {}

    def list_tags(self, asked: Asked) -> Asked:
        if asked["resourceARN"] not in self._account.tags:
            raise missing("resource")
        return {"tags": self._account.tags[asked["resourceARN"]]}

    def get_base_model(self, asked: Asked) -> Asked:
        base, model = self._account.base_of(asked["modelIdentifier"])
        details = {"modelArn": self._account.base_arn(base), "modelId": base, "modelName": model.name,
                   "customizationsSupported": ["FINE_TUNING"], "modelLifecycle": {"status": "ACTIVE"}}  # fmt: skip
        return {"modelDetails": details}

    def _job(self, asked: Asked) -> Job:
        return _find(self._account.jobs, asked["jobIdentifier"], lambda job: job.request["jobName"], "job")

    def _model(self, asked: Asked) -> CustomModel:
        return _find(self._account.models, asked["modelIdentifier"], lambda model: model.name, "model")

    def _deployment(self, asked: Asked) -> Deployment:
        identifier = asked["customModelDeploymentIdentifier"]
        return _find(self._account.deployments, identifier, lambda deployment: deployment.name, "deployment")

    def _throughput(self, asked: Asked) -> Throughput:
        identifier = asked["provisionedModelId"]
        return _find(self._account.throughputs, identifier, lambda throughput: throughput.name, "provisioned model")

    def _listed(self, items: Iterable[T], asked: Asked, name: Callable[[T], str]) -> list[T]:
        """The items that a list shows by now, newest first unless requested otherwise."""
        seen = self._account.clock.now - self._account.settings.list_lag_seconds
        after: float = asked.get("creationTimeAfter") or asked.get("createdAfter") or 0.0
        until: float = asked.get("creationTimeBefore") or asked.get("createdBefore") or seen
        part, until = asked.get("nameContains", ""), min(seen, until)
        found = [item for item in items if after <= item.created_at <= until and part in name(item)]
        return found if asked.get("sortOrder") == "Ascending" else found[::-1]

    def _page(self, key: str, shown: list[Asked], asked: Asked) -> Asked:
        here, token = page(shown, asked.get("nextToken", ""), asked.get("maxResults", 1000), self._account.settings)
        return {key: here} | ({"nextToken": token} if token else {})


def _find(items: dict[str, T], identifier: str, name: Callable[[T], str], kind: str) -> T:
    for arn, item in items.items():
        if identifier in (arn, name(item)):
            return item
    raise missing(kind)


def _present(optional: Asked) -> Asked:
    return {key: value for key, value in optional.items() if value is not None}


def _phases(job: Job) -> Asked:
    return {phase: {"status": state} for phase, state in job.phases.items()}


def _metrics(job: Job) -> Asked:
    found: Asked = {"trainingMetrics": {"trainingLoss": job.losses[-1]["train_loss"]}}
    if job.validation:
        found["validationMetrics"] = [{"validationLoss": job.losses[-1]["valid_loss"]}]
    return found
