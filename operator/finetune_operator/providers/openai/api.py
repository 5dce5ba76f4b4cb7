"""The fine-tuning API of OpenAI and compatible services: one call per method. `wire.py` interprets the answers.

The SDK's retries are off: a create that failed with 500 may have been carried out, and only a lookup can tell.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai
from openai import BaseModel
from openai.types import FileObject

from finetune_api.openai import is_openai
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import JobKey, Metrics, RemoteJob
from finetune_operator.providers.calls.errors import (
    AtCapacity,
    NotThere,
    Page,
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
    limit_pages,
)
from finetune_operator.providers.calls.failed_calls import unanswered
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.calls.timeouts import Limit
from finetune_operator.providers.calls.values import RESULTS_MAX_BYTES, sanitized
from finetune_operator.providers.openai import address, wire
from finetune_operator.providers.openai.client import CALL_SECONDS, FORM
from finetune_operator.providers.openai.models import OpenAIModels
from finetune_operator.providers.openai.refusals import Barred, Throttled, translated, with_spec_field
from finetune_operator.providers.ports import AnsweringApi, HostingApi, JobRequest, RemoteFile

T = TypeVar("T")
E = TypeVar("E", bound=ProviderError)

logger = logging.getLogger(__name__)

UPLOAD_SILENCE_SECONDS = 60.0
PAGE = 100
EVENT_PAGES = 10
LOOKUPS = 2
"""How many lists must lack a job before it counts as gone."""

CANCEL_PAUSE_SECONDS = 10.0
DELETE_PAUSE_SECONDS = 10.0


class OpenAIApi:
    """A FineTuningApi over OpenAI's SDK."""

    suffix_limit = 40
    models_answer = True
    """Whether tuned models are called by name. If they need a deployment, a model that does not answer may exist."""

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk
        self._turn: Callable[[], Awaitable[None]] | None = None
        self._host = urlsplit(str(sdk.base_url)).netloc
        self._base = str(sdk.base_url).rstrip("/")
        self._guess = address.probably(self._base)
        self._keeps_labels = is_openai(self._host)
        """Whether the service is known to return jobs' labels."""

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    def use_limiter(self, limiter: RateLimiter) -> None:
        """Each request waits for the rate limiter."""
        self._turn = limiter.wait

    async def check(self) -> None:
        """List one job: this proves that the key is valid and the fine-tuning API exists."""
        _items(await self._ask_root(self._sdk.fine_tuning.jobs.list(limit=1)))

    async def account(self) -> str | None:
        """From the headers of OpenAI's answers: the key's project or, if it has none, its organization."""
        answer = await self._ask(self._sdk.fine_tuning.jobs.with_raw_response.list(limit=1))
        found = ((what, answer.headers.get(f"openai-{what}")) for what in ("project", "organization"))
        return next((f"{what} {sanitized(name)[:64]}" for what, name in found if name), None)

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """POST /files with a streamed body: the SDK's own `create` needs the whole file."""
        head, tail, content_type = _envelope(name)
        broken: list[Exception] = []

        async def content() -> AsyncIterator[bytes]:
            yield head
            try:
                async for chunk in body:
                    yield chunk
            except Exception as error:
                broken.append(error)
                raise
            yield tail

        headers = {"Content-Type": content_type, "Content-Length": str(len(head) + size + len(tail))}
        timeout = httpx2.Timeout(UPLOAD_SILENCE_SECONDS, connect=5.0)
        options: Any = {"headers": headers, "timeout": timeout}
        try:
            answer = await self._ask_root(
                self._sdk.post("/files", cast_to=FileObject, content=content(), options=options)
            )
        except Unknown:
            if broken:
                raise broken[0] from None  # the sender failed, not the provider
            raise
        return wire.file(_fields(answer))

    async def file(self, file_id: str) -> RemoteFile:
        """GET /files/ID."""
        return wire.file(_fields(await self._ask(self._sdk.files.retrieve(file_id))))

    async def files(self, prefix: str) -> list[RemoteFile]:
        """GET /files, page by page. A service without this list still returns single files."""
        found: list[RemoteFile] = []
        try:
            async for page in self._pages(self._sdk.files.list(purpose="fine-tune", limit=10 * PAGE)):
                found += [wire.file(one) for one in page]
        except Refused as error:
            logger.warning("files at %s cannot be listed: %s", self._host, error.message)
        return [file for file in found if file.name.startswith(prefix)]

    async def delete_file(self, file_id: str) -> None:
        """DELETE /files/ID."""
        deletion = self._sdk.files.with_raw_response.delete(file_id)
        await self._delete(deletion, lambda: self._sdk.files.retrieve(file_id), f"file {file_id}")

    async def end_uploads(self, prefix: str) -> None:
        """Nothing: incomplete uploads are not kept."""

    async def create(self, request: JobRequest) -> RemoteJob:
        """POST /fine_tuning/jobs, once."""
        body: dict[str, Any] = {
            "model": request.spec.base_model,
            "training_file": request.file("train"),
            "method": wire.method(request.spec),
            "seed": request.spec.hyperparameters.seed,
            "suffix": self._suffix(request),
            "metadata": labels(request),
        }
        validation = request.file("validation")
        if validation is not None:
            body["validation_file"] = validation
        try:
            made = await self._ask(self._sdk.fine_tuning.jobs.create(**body, **self._extra_arguments(request)))
        except Barred as error:
            raise self._closed_error(error) from None
        except Throttled as error:
            # Usually because of running jobs. If other calls are throttled too, their own answers say so.
            message = f"{self._host} takes no more jobs now (429): {error.said}" if error.said else error.message
            raise AtCapacity(message, error.retry_after, error.reason) from None
        except Refused as error:
            raise with_spec_field(error) from None
        return self._note_labels(wire.job(_fields(made)))

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:
        """Find by labels. A service without this filter returns all jobs or refuses it; the caller filters by `is_of`.

        A service that drops labels would return nothing for the filter, so until it has returned some all are listed.
        """
        try:
            found = await self._jobs(since, {"uid": key.uid, "attempt": str(key.attempt)})
        except Refused:
            return await self._jobs(since, None)
        return found if found or self._keeps_labels else await self._jobs(since, None)

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        """GET /fine_tuning/jobs, newest first."""
        return await self._jobs(since, None)

    async def _jobs(self, since: datetime, labels: dict[str, str] | None) -> list[RemoteJob]:
        """Whole pages, until older jobs follow in proper order: a service's clock or sorting may be wrong."""
        found: list[RemoteJob] = []
        async for page in self._pages(self._sdk.fine_tuning.jobs.list(limit=PAGE, metadata=labels or openai.omit)):
            found += [self._note_labels(wire.job(one)) for one in page]
            if wire.reaches_back_to(found, since):
                break
        return found

    def _note_labels(self, job: RemoteJob) -> RemoteJob:
        self._keeps_labels = self._keeps_labels or "uid" in job.labels
        return job

    async def job(self, job_id: str) -> RemoteJob:
        """GET /fine_tuning/jobs/ID."""
        return wire.job(_fields(await self._ask(self._sdk.fine_tuning.jobs.retrieve(job_id))))

    async def metrics(self, job: RemoteJob) -> Metrics:
        """From the results file, or else the newest events, or else checkpoints; a service may have none of these."""
        found = await self._optional(self._from_results, job)
        if not found.train:
            found = await self._optional(self._from_events, job)
        if found.train or not job.ended:
            return found
        return await self._optional(self._from_checkpoints, job)

    async def _optional(self, read: Callable[[RemoteJob], Awaitable[Metrics]], job: RemoteJob) -> Metrics:
        """Read one source of losses; empty if the service does not have it, or denies it to this key."""
        try:
            return await read(job)
        except (Refused, Barred, Unreadable) as error:
            logger.info("no losses of %s: %s", job.id, error.message)
            return Metrics()

    async def _from_results(self, job: RemoteJob) -> Metrics:
        """From the results file; empty if it cannot be read. It may be named before it exists, and is dispensable."""
        if not job.results:
            return Metrics()
        try:
            content = await self._content(job.results[0])
        except Unknown as error:
            logger.warning("the results of %s cannot be read: %s", job.id, error.message)
            return Metrics()
        return await asyncio.to_thread(wire.metrics_of_results, content)  # it may be long

    async def _from_events(self, job: RemoteJob) -> Metrics:
        return wire.metrics_of_events(await self._events(job))

    async def _from_checkpoints(self, job: RemoteJob) -> Metrics:
        found: list[dict[str, Any]] = []
        async for page in self._pages(self._sdk.fine_tuning.jobs.checkpoints.list(job.id, limit=PAGE)):
            found += page
            if len(found) >= PAGE * EVENT_PAGES:
                break
        return wire.metrics_of_checkpoints(found)

    async def cancel(self, job_id: str) -> None:
        """POST /fine_tuning/jobs/ID/cancel. A refusal because the job has ended counts as success.

        Raises:
            NotThere: there is no such job.
            TryLater: accepted, but the job still runs: a proxy may have answered.
        """
        try:
            answer = _fields(await self._ask(self._sdk.fine_tuning.jobs.cancel(job_id)))
            if wire.has_ended(answer) or (await self.job(job_id)).ended:
                return
        except NotThere:
            raise
        except Refused:
            if not (await self.job(job_id)).ended:
                raise
            return
        message = f"job {job_id} was to be cancelled at {self._host}, and continues"
        raise TryLater(Reason.PROVIDER_BUSY, message, CANCEL_PAUSE_SECONDS)

    async def has_model(self, model: str) -> bool:
        """GET /models/NAME, or else the list, or else a request for one token from the model itself."""
        try:
            shown = _fields(await self._ask(self._sdk.models.retrieve(model)))
        except Refused:
            return await self._is_listed(model)
        except Unreadable:  # a proxy's page, or the service does not have this path: try the list
            if not await self._is_listed(model):
                raise
            return True
        return bool(shown["id"])

    async def _is_listed(self, model: str) -> bool:
        try:
            async for page in self._pages(self._sdk.models.list()):
                if any(one.get("id") == model for one in page):
                    return True
        except (Refused, Unreadable):
            if not self.models_answer:
                raise
            return await OpenAIModels(self._sdk).answers(model)
        return False

    async def delete_model(self, model: str) -> None:
        """Delete its job's result files, which are kept as long as the model; then DELETE /models/NAME."""
        for file_id in await self._results_of(model):
            await self.delete_file(file_id)
        deletion = self._sdk.models.with_raw_response.delete(model)
        await self._delete(deletion, lambda: self._sdk.models.retrieve(model), f"model {model}")

    async def _results_of(self, model: str) -> tuple[str, ...]:
        """The result files of the model's job, which is found by the model's name; a single list may lack it."""
        for _ in range(LOOKUPS):
            async for page in self._pages(self._sdk.fine_tuning.jobs.list(limit=PAGE)):
                for made in map(wire.job, page):
                    if made.model == model:
                        return made.results
        return ()

    def hosting(self) -> HostingApi | None:
        """None: tuned models are called by name."""
        return None

    def answering(self) -> AnsweringApi | None:
        """Chat completions."""
        return OpenAIModels(self._sdk)

    async def _events(self, job: RemoteJob) -> list[dict[str, Any]]:
        """The newest page while a job runs, as status keeps earlier points; up to EVENT_PAGES once it has ended."""
        events: list[dict[str, Any]] = []
        most = PAGE * (EVENT_PAGES if job.ended else 1)
        async for page in self._pages(self._sdk.fine_tuning.jobs.list_events(job.id, limit=PAGE)):
            events += page
            if len(events) >= most:
                break
        return events

    async def _pages(self, first: Awaitable[Any]) -> AsyncIterator[list[dict[str, Any]]]:
        """A list's pages, until one has nothing new: some services return the first page for ever."""
        page, seen, count = await self._ask_root(first), set[str](), 0
        while True:
            limit_pages(count := count + 1, self._host)
            here = _items(page)
            new = {str(one.get("id")) for one in here} - seen
            if not new:
                return
            yield here
            if not page.has_next_page():
                return
            seen |= new
            page = await self._ask(page.get_next_page())

    async def _content(self, file_id: str) -> bytes:
        """A file's content, up to RESULTS_MAX_BYTES."""

        async def read() -> bytes:
            content = bytearray()
            async with Limit(CALL_SECONDS) as limit, self._sdk.files.with_streaming_response.content(file_id) as answer:
                async for chunk in answer.iter_bytes():
                    content += chunk
                    limit.transferred(len(chunk))
                    if len(content) >= RESULTS_MAX_BYTES:
                        break
            return bytes(content)

        return await self._ask(read())

    async def _delete(self, deletion: Awaitable[Any], look: Callable[[], Awaitable[Any]], what: str) -> None:
        """Delete, and read back unless the answer confirms the deletion: it may be a proxy's.

        Raises:
            TryLater: it still exists.
        """
        try:
            answer = await self._ask(deletion)
        except NotThere:
            return
        if wire.confirms_deletion(answer.status_code, answer.content):
            return
        try:
            there = _fields(await self._ask(look()))
        except Refused:
            return  # gone, or it cannot be told
        if not wire.is_deleted(there):
            message = f"{what} was to be deleted at {self._host}, and is still there"
            raise TryLater(Reason.PROVIDER_BUSY, message, DELETE_PAUSE_SECONDS)

    def _suffix(self, request: JobRequest) -> str:
        """With the attempt's mark, except at OpenAI: elsewhere it may be all that identifies a job without labels."""
        mark = "" if is_openai(self._host) else request.key.mark
        return request.suffix[: self.suffix_limit - len(mark)].rstrip("-") + mark

    def _extra_arguments(self, request: JobRequest) -> dict[str, Any]:  # noqa: ARG002 - for providers that take more
        """Additional arguments of create, for subclasses."""
        return {}

    def _closed_error(self, error: "Barred") -> ProviderError:
        """The error if OpenAI has closed fine-tuning for an organization, whose key works for everything else."""
        if not is_openai(self._host) and "closed" not in error.code:
            return error
        return Refused(Reason.FINE_TUNING_CLOSED, f"the provider takes no new fine-tuning jobs: {error.said}")

    async def _wait(self) -> None:
        """Wait for the rate limiter.

        Raises:
            ProviderError: the call must not be made.
        """
        if self._turn is not None:
            await self._turn()

    async def _ask_root(self, call: Awaitable[T]) -> T:
        """As `_ask`, for paths that every service has: if neither these nor models exist, the address may be wrong."""
        try:
            return await self._ask(call)
        except NotThere as error:
            if self._guess is None or await self._has_models():
                raise
            raise self._with_hint(error) from None

    async def _has_models(self) -> bool:
        try:
            await self._ask(self._sdk.models.list())
        except (NotThere, Unreadable):
            return False
        except ProviderError:
            return True  # or it cannot be told
        return True

    def _hint_if_page(self, error: E) -> E:
        return self._with_hint(error) if isinstance(error, Page) else error

    def _with_hint(self, error: E) -> E:
        """Add the probable address to the error of an address without such an API."""
        if self._guess is not None:
            error.message += f"; baseURL is {self._base}, and most services have this API at {self._guess}"
        return error

    async def _ask(self, call: Awaitable[T]) -> T:
        """The answer, or the error converted; `from None`, as the SDK's errors contain the request's headers."""
        try:
            await self._wait()
            answer = await call
        except openai.APIStatusError as error:
            raise self._hint_if_page(translated(error, self._host)) from None
        except Page as error:  # of our own client
            raise self._hint_if_page(error) from None
        except (openai.APIError, httpx2.HTTPError, TimeoutError) as error:
            if isinstance(error.__cause__, ProviderError):
                raise error.__cause__ from None
            raise unanswered(error, self._host) from None
        finally:
            if isinstance(call, Coroutine):
                call.close()  # avoids the warning about a coroutine that was never awaited
        if isinstance(answer, str):  # the SDK returns an answer that is not JSON as a string
            raise Unreadable(f"{self._host} answers with a text")
        if answer is None or isinstance(answer, list | int | float):  # the SDK does not validate the JSON's type
            raise Unreadable(f"{self._host} answers with JSON that is not an object")
        return answer


def labels(request: JobRequest) -> dict[str, str]:
    """The job's labels at the provider, for lookups and for users."""
    key = request.key
    return {"uid": key.uid, "attempt": str(key.attempt), "namespace": key.namespace, "job": key.name}


def _fields(answer: BaseModel) -> dict[str, Any]:
    """An answer's raw fields. Warnings are off, since those about unexpected types would quote values."""
    return answer.to_dict(warnings=False)


def _items(page: Any) -> list[dict[str, Any]]:
    """The items of a page. Services written in Go send null for an empty list.

    Raises:
        TypeError: the page has no list.
    """
    empty = page.data is None and "data" in page.model_fields_set
    return [] if empty else [_fields(one) for one in page.data]


def _envelope(name: str) -> tuple[bytes, bytes, str]:
    """Head and tail of a multipart form around a file, and its content type. `name` must have no quotes."""
    mark = f"finetune-{secrets.token_hex(16)}"
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode(), f"\r\n--{mark}--\r\n".encode(), f"{FORM}; boundary={mark}"
