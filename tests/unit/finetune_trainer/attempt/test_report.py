"""Reports over real TLS: the newest one arrives, trouble never reaches the run, and the end is always left behind."""

import http.server
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from finetune_api.job_status import Loss, LossPoint, Progress
from finetune_api.names import REPORT_CA_VARIABLE, TERMINATION_MESSAGE_MAX_BYTES
from finetune_api.reasons import Reason
from finetune_api.trainer import Report, read_termination_message
from finetune_trainer.attempt import outcome, report
from finetune_trainer.attempt.interruption import Interrupted, Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.waiting import wait_until


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(pem + secret)
    return folder / "server.pem", pem.decode()


class Operator:
    """A report endpoint that answers with the given statuses, then with 204, and keeps what it got."""

    def __init__(self, pem, statuses=(), retry_after=None):
        self.got, self.tokens = [], []
        remaining = list(statuses)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = remaining.pop(0) if remaining else 204
                outer.tokens.append(self.headers["Authorization"])
                outer.got.append((status, Report.model_validate_json(body), len(body), time.monotonic()))
                self.send_response(status)
                if retry_after is not None and status != 204:
                    self.send_header("Retry-After", retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}/v1/reports"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def phases(self):
        return [got.phase for status, got, _, _ in self.got if status == 204]


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def operator(pem, tmp_path, monkeypatch):
    monkeypatch.setenv(REPORT_CA_VARIABLE, pem[1])
    token = tmp_path / "token"
    token.write_text("first\n")
    monkeypatch.setattr(report, "TOKEN_PATH", str(token))
    made = []

    def make(*args, **kwargs):
        made.append(Operator(pem[0], *args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def job_for(tmp_path, url):
    job = make_job(tmp_path / "job", tmp_path, splits=("train",))
    return job.model_validate(job.wire() | {"report": {"url": url}})


def reporter_for(tmp_path, server, **kwargs):
    options = {"interval": 0.05, "termination_path": tmp_path / "message"} | kwargs
    return Reporter(job_for(tmp_path, server.url), **options)


def test_the_first_report_says_validating_and_the_last_one_arrives(operator, tmp_path):
    server = operator()
    reporter = reporter_for(tmp_path, server)
    reporter.update(phase="Running", progress=Progress(step=1, total_steps=2))
    reporter.update(phase="Succeeded")
    reporter.close()
    assert server.phases[-1] == "Succeeded"
    assert server.got[-1][1].progress.step == 1
    assert set(server.tokens) == {"Bearer first"}


def test_a_run_that_has_nothing_to_say_and_moves_data_is_heard(operator, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "CHECK_SECONDS", 0.05)
    server = operator()
    reporter = reporter_for(tmp_path, server)

    def heard_again():
        (tmp_path / "download").write_bytes(bytes(2 * report.LEAST_BYTES))
        return len(server.got) > 2

    wait_until(heard_again)
    reporter.close()
    assert set(server.phases) == {"Validating"}


def test_a_run_that_hangs_is_not_heard(operator, tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(report, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(report, "_bytes_moved", lambda: looks.append(1) or report.LEAST_BYTES * len(looks) // 2)
    server = operator()
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: len(looks) > 5)
    assert len(server.got) == 1
    reporter.close()


def test_the_token_is_read_anew_for_each_report(operator, tmp_path):
    server = operator()
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: server.got)
    (tmp_path / "token").write_text("second")
    reporter.update(phase="Succeeded")
    reporter.close()
    assert server.tokens == ["Bearer first", "Bearer second"]


def test_between_two_reports_of_a_phase_lies_the_interval_and_only_the_newest_is_sent(operator, tmp_path):
    server = operator()
    reporter = reporter_for(tmp_path, server, interval=0.4)
    for step in range(50):
        reporter.update(phase="Running", progress=Progress(step=step, total_steps=50))
        time.sleep(0.01)
    reporter.update(phase="Succeeded")
    reporter.close()
    running = [(got.progress.step, at) for _, got, _, at in server.got if got.phase == "Running"]
    assert 1 <= len(running) <= 4
    assert all(later[1] - earlier[1] >= 0.35 for earlier, later in itertools.pairwise(running))


@pytest.mark.alike
@pytest.mark.parametrize("refusals", [[429, 500, 503], [408]])
def test_a_busy_operator_gets_the_last_report_later(operator, tmp_path, refusals):
    server = operator(list(refusals), retry_after="1")
    reporter = reporter_for(tmp_path, server)
    reporter.update(phase="Succeeded")
    reporter.close()
    assert [status for status, *_ in server.got][: len(refusals)] == refusals
    assert server.phases[-1] == "Succeeded"
    times = [at for *_, at in server.got]
    assert all(later - earlier >= 0.95 for earlier, later in itertools.pairwise(times[:4])), times


def test_a_report_that_is_too_long_is_sent_shortened(operator, tmp_path):
    server = operator([204, 413])
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: server.got)
    points = [LossPoint(step=step, value=1.0) for step in range(100)]
    reporter.update(phase="Succeeded", loss=Loss(train=points, validation=points))
    reporter.close()
    assert [len(got.loss.train) for _, got, _, _ in server.got[1:]] == [100, 20]


def test_a_refused_report_is_not_repeated_and_ends_nothing(operator, tmp_path, caplog):
    server = operator([400])
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: server.got)
    reporter.update(phase="Succeeded")
    reporter.close()
    assert [status for status, *_ in server.got] == [400, 204]
    assert "refused a report with status 400" in caplog.text


@pytest.mark.parametrize("status", [401, 403])
def test_the_last_report_outlives_a_token_that_is_just_being_renewed(operator, tmp_path, status):
    server = operator([204, status])
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: server.got)
    reporter.update(phase="Succeeded")
    reporter.close()
    assert server.phases == ["Validating", "Succeeded"]


def test_an_attempt_that_is_over_for_the_operator_ends_at_once(operator, tmp_path):
    server = operator([204, 410])
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: server.got)
    reporter.update(phase="Interrupted")
    reporter.close()
    assert [status for status, *_ in server.got] == [204, 410]


def test_a_run_whose_job_is_gone_says_so_no_more_every_moment_and_ends_at_once(operator, tmp_path):
    """Deleted with --cascade=orphan, it is at work for hours of which nobody wants to hear."""
    server = operator([410] * 100)
    reporter = reporter_for(tmp_path, server)
    wait_until(lambda: server.got)
    for step in range(20):
        reporter.update(phase="Validating", progress=Progress(step=step, total_steps=50))
        time.sleep(0.02)
    assert [got.phase for _, got, _, _ in server.got] == ["Validating"], "the interval has passed eight times"
    reporter.update(phase="Succeeded")
    reporter.close()
    assert [got.phase for _, got, _, _ in server.got] == ["Validating", "Succeeded"]


def test_without_an_operator_the_run_goes_on_and_closing_is_bounded(tmp_path, monkeypatch, pem):
    monkeypatch.setenv(REPORT_CA_VARIABLE, pem[1])
    monkeypatch.setattr(report, "FINAL_SECONDS", 0.5)
    monkeypatch.setattr(report, "_REQUEST_SECONDS", 60.0)
    (tmp_path / "token").write_text("first")
    monkeypatch.setattr(report, "TOKEN_PATH", str(tmp_path / "token"))
    with socket.create_server(("localhost", 0)) as mute:  # whoever connects waits for its first word
        url = f"https://localhost:{mute.getsockname()[1]}/v1/reports"
        reporter = Reporter(job_for(tmp_path, url), termination_path=tmp_path / "message")
        started, computed = time.monotonic(), time.thread_time()
        for step in range(100):
            reporter.update(phase="Running", progress=Progress(step=step, total_steps=100))
        assert time.thread_time() - computed < 0.5
        assert time.monotonic() - started < 60, "no update waits for an answer"
    ended = time.monotonic()
    reporter.close()
    assert time.monotonic() - ended < 8
    assert read_termination_message((tmp_path / "message").read_text()).progress.step == 99


def test_a_connection_that_is_reset_before_anything_is_sent_is_told_as_that(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("t")
    monkeypatch.setattr(report, "TOKEN_PATH", str(tmp_path / "token"))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset():
            other, _ = server.accept()
            other.recv(1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.close()

        thread = threading.Thread(target=reset)
        thread.start()
        with pytest.raises(ConnectionResetError):
            report.to_operator("POST", f"https://127.0.0.1:{server.getsockname()[1]}/", b"", {}, seconds=5, most=1)
        thread.join()


def test_a_server_with_another_certificate_gets_no_token(operator, tmp_path, monkeypatch):
    server = operator()
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv(REPORT_CA_VARIABLE, certificate(other)[1])
    monkeypatch.setattr(report, "FINAL_SECONDS", 0.5)
    reporter = reporter_for(tmp_path, server)
    reporter.close()
    assert server.tokens == []


def ends(work, tmp_path):
    path = tmp_path / "message"
    reporter = Reporter(make_job(tmp_path, tmp_path, splits=("train",)), termination_path=path)
    code = outcome.run_to_end(work, reporter, Interruption())
    return code, path.read_text()


def fails():
    raise TrainerError(Reason.DATASET_INVALID, "train.jsonl line 17: completion is empty" + " x" * 1500)


def stops():
    raise Interrupted


def crashes():
    raise RuntimeError("whatever")


SHORT = "the machine's memory was not enough"


def fills_the_disk():
    raise OSError(28, "No space left on device", "/tmp/fingerprints-1")


def exceeds_the_size_of_files():
    raise OSError(27, "File too large", "/out/checkpoint-3")


def maps_more_than_there_is():
    raise OSError(12, "Cannot allocate memory")


def allocates_more_than_there_is():
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12")


def needs_more_than_there_is():
    raise MemoryError


def loses_its_gpu():
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be reported later")


@pytest.mark.parametrize(
    ("work", "code", "phase", "reason"),
    [
        (lambda: None, 0, "Validating", None),
        (fails, 65, "Failed", "DatasetInvalid"),
        (stops, 75, "Interrupted", None),
        (crashes, 1, "Failed", "TrainerCrashed"),
        (fills_the_disk, 73, "Failed", "ArtifactFailed"),
        (needs_more_than_there_is, 79, "Failed", "OutOfMemory"),
        (loses_its_gpu, 85, "Failed", "GPUUnavailable"),
    ],
)
def test_every_end_leaves_a_termination_message_that_the_kubelet_takes_whole(tmp_path, work, code, phase, reason):
    got, text = ends(work, tmp_path)
    assert got == code
    assert len(text.encode()) <= TERMINATION_MESSAGE_MAX_BYTES
    message = read_termination_message(text)
    assert (message.phase, message.failure.reason if message.failure else None) == (phase, reason)
    assert json.loads(text)["uid"] == "1234"


@pytest.mark.parametrize(
    ("work", "said", "step"),
    [
        (fills_the_disk, "/tmp/fingerprints-1: No space left on device", "spec.resources.ephemeralStorage"),
        (exceeds_the_size_of_files, "/out/checkpoint-3: File too large", "spec.resources.ephemeralStorage"),
        (maps_more_than_there_is, f"{SHORT} (OSError at test_report.py:{{}})", "spec.resources"),
        (allocates_more_than_there_is, f"{SHORT} (RuntimeError at test_report.py:{{}})", "spec.resources"),
        (needs_more_than_there_is, f"{SHORT} (MemoryError at test_report.py:{{}})", "spec.resources"),
        (loses_its_gpu, "a GPU has failed: uncorrectable ECC error", "nvidia-smi"),
    ],
)
def test_what_a_node_lacks_is_told_as_that_and_not_as_a_bug(tmp_path, work, said, step):
    failure = read_termination_message(ends(work, tmp_path)[1]).failure
    where = said.format(work.__code__.co_firstlineno + 1)
    assert (failure.message, step in failure.next_step) == (where, True)


def test_a_path_without_a_kubelet_is_no_error(tmp_path):
    job = make_job(tmp_path, tmp_path, splits=("train",))
    reporter = Reporter(job, termination_path=tmp_path / "absent" / "message")
    assert outcome.run_to_end(lambda: None, reporter, Interruption()) == 0
