"""`finetune-trainer serve`: an OpenAI-compatible server for a tuned or a base model.

The server listens at once and answers /health with 503 until a thread has loaded the model, then with 200. On SIGTERM
it asks clients with open connections to close them, accepts no new ones, finishes running answers (for up to
--drain-seconds), and exits with 0. Kubernetes' preStop hook gives the endpoints time to drop the pod before that; a
connection that was already open stays with the pod.

CPU threads follow the container's CPU quota (OMP_NUM_THREADS overrides it). No hub is contacted, except with
--allow-hub for an adapter's base model that is not in the cache.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType

import uvicorn

from finetune_api.exit_codes import ExitCode
from finetune_api.names import TERMINATION_MESSAGE_MAX_BYTES, TERMINATION_MESSAGE_PATH
from finetune_api.reasons import Reason
from finetune_trainer.attempt import outcome, pod_log
from finetune_trainer.computing import garbage, gpus, torch_settings
from finetune_trainer.computing.limits import cpu_threads
from finetune_trainer.errors import TrainerError, is_short_of_memory
from finetune_trainer.models.base_model import quiet_libraries
from finetune_trainer.serving.api_key import KeyFile
from finetune_trainer.serving.app import ModelHolder, build_app
from finetune_trainer.serving.artifact import open_artifact, unpacked

_log = logging.getLogger(__name__)
_KEEP_ALIVE_SECONDS = 75  # longer than proxies and clients keep idle connections, so that they close them, not we
_NO_ROOM = "the memory that the server may take was not enough to load the model"
_MORE_ROOM = "Raise the limit (the container's memory, ulimit -v), or serve a smaller model."
_CLOSE_SECONDS = 6
"""Longer than httpx keeps an idle connection: a client without a request in this time will not reuse it."""


def main(args: argparse.Namespace) -> int:
    """Serve until a signal arrives; the exit code says how it ended."""
    pod_log.begin()
    logging.getLogger("uvicorn").setLevel(logging.INFO)  # logs start and end; requests are in the metrics
    prepare_environment(allow_hub=args.allow_hub)
    try:
        key = KeyFile(args.api_key_file) if args.api_key_file else None
    except TrainerError as error:
        return _say(error)
    try:
        listening = listen(args.host, args.port)
    except TrainerError as error:
        return _say(error)
    holder = ModelHolder()
    server = DrainingServer(
        uvicorn.Config(
            build_app(holder, key, sagemaker=args.sagemaker),
            port=args.port,
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=args.drain_seconds,
        )
    )
    loading = _Loading(args, holder, server)
    loading.start()
    _run_server(server, listening)
    if loading.error is not None:
        _say(loading.error)  # at the end, so that it is the log's last line
    if holder.served is not None:
        holder.served.engine.close(timeout=5)
    return loading.exit_code


def listen(host: str | None, port: int) -> socket.socket:
    """The listening socket. Without a host it listens on all addresses, also on a host with IPv6 only.

    Raises:
        TrainerError: SpecInvalid, the address is in use, or none of this machine.
    """
    try:
        if host is None and socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        family = socket.AF_INET6 if ":" in (host or "") else socket.AF_INET
        return socket.create_server((host or "", port), family=family)
    except OSError as error:
        message = f"{'' if host is None else f'--host {host} '}--port {port}: {error.strerror}"
        raise TrainerError(
            Reason.SPEC_INVALID, message, "Name another port with --port, or end what has it."
        ) from error


def prepare_environment(*, allow_hub: bool) -> None:
    """Settings that libraries read on import: no hub, no telemetry, as many threads as the quota allows."""
    if not allow_hub:
        os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    torch_settings.prepare(cpu_threads())


class DrainingServer(uvicorn.Server):
    """Does not close an idle connection while a request may be in flight: it would fail (RFC 9112, section 9.6)."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer with `Connection: close` until no connection is idle, for a few seconds; then shut down."""
        _log.info("stopping: clients that keep a connection are asked to close it")
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        until = time.monotonic() + _CLOSE_SECONDS
        while (  # noqa: ASYNC110 - uvicorn has no event for a closed connection
            self._some_idle() and not self.force_exit and time.monotonic() < until
        ):
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)

    def _some_idle(self) -> bool:
        cycles = [getattr(connection, "cycle", None) for connection in self.server_state.connections]
        return any(cycle is None or cycle.response_complete for cycle in cycles)


class _Loading(threading.Thread):
    """Loads the model while the server already listens; stops the server if that fails."""

    def __init__(self, args: argparse.Namespace, holder: ModelHolder, server: uvicorn.Server) -> None:
        super().__init__(name="loading", daemon=True)
        self._args = args
        self._holder = holder
        self._server = server
        self.exit_code = int(ExitCode.OK)
        self.error: TrainerError | None = None

    def run(self) -> None:
        """Put the loaded model into the holder, or stop the server with the reason's exit code."""
        try:
            self._load()
        except TrainerError as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - a bug; the process must not look as if it were still loading
            if is_short_of_memory(error):
                self._end(TrainerError(Reason.OUT_OF_MEMORY, _NO_ROOM, _MORE_ROOM))
                return
            self._holder.problem = "it could not be loaded; the server's log says why"
            _write_termination_message(
                f"the model could not be loaded ({type(error).__name__}); the server's log says why"
            )
            _log.exception("the model could not be loaded")
            self.exit_code = int(ExitCode.CRASHED)
            self._server.should_exit = True

    def _end(self, error: TrainerError) -> None:
        self._holder.problem = f"{error.reason}: {error.message}"
        self.error, self.exit_code = error, int(error.exit_code)
        self._server.should_exit = True

    def _load(self) -> None:
        args = self._args
        artifact = open_artifact(
            unpacked(args.model) if args.sagemaker else args.model,
            args.model_cache,
            base=args.base,
            all_checksums=args.verify_checksums,
            allow_hub=args.allow_hub,
        )
        gpus.require()
        garbage.import_and_freeze("finetune_trainer.serving.load")  # slow, so only after the checks above
        from finetune_trainer.serving.load import LoadOptions, load

        quiet_libraries()

        options = LoadOptions(
            name=args.name or args.model.resolve().name,
            max_model_length=args.max_model_length,
            dtype=args.dtype,
            max_batch_size=args.max_batch_size,
            max_waiting=args.max_waiting,
            trust_remote_code=args.trust_remote_code,
        )
        self._holder.served = load(artifact, options)


def _run_server(server: uvicorn.Server, listening: socket.socket) -> None:
    """Run the server. Afterwards uvicorn raises the signal that ended it again, which must have no effect then."""

    def ignore(_signal: int, _frame: FrameType | None) -> None:
        _log.info("stopped")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ignore)
    server.run(sockets=[listening])


def _say(error: TrainerError) -> int:
    _log.error("%s: %s", error.reason, error.message)
    if error.next_step:
        _log.error("next step: %s", error.next_step)
    _write_termination_message(outcome.sentence(error.reason, error.message, error.next_step))
    return int(error.exit_code)


def _write_termination_message(sentence: str) -> None:
    """For the pod's status, which otherwise shows the end of the log; without a kubelet the file does not exist."""
    path = Path(TERMINATION_MESSAGE_PATH)
    if path.is_file():
        with contextlib.suppress(OSError):
            path.write_text(sentence[:TERMINATION_MESSAGE_MAX_BYTES], encoding="utf-8")
