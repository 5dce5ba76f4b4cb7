"""The operator's own CA over the years, its Secret between replicas, and the reload of a serving context."""

import asyncio
import base64
import copy
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from finetune_operator.runtime import authority, certificates
from finetune_operator.runtime.authority import Action, Material, carry_out, decide
from finetune_operator.runtime.certificates import (
    Certificates,
    CertificatesUnusable,
    MountedFolder,
    OwnAuthority,
    source_of,
)  # fmt: skip
from finetune_operator.runtime.errors import Conflict, KubeError, NoCluster
from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.settings import Settings

NAMES = ("finetune-operator.finetune-system.svc", "localhost")
T0 = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def fresh():
    return carry_out(Action.MAKE_ALL, None, T0, NAMES)


@pytest.fixture(scope="module")
def staged(fresh):
    return carry_out(Action.STAGE_NEXT_CA, fresh, T0 + 1461 * DAY, NAMES)


@pytest.mark.parametrize(
    ("after", "action"),
    [
        (timedelta(0), Action.KEEP),
        (59 * DAY, Action.KEEP),
        (61 * DAY, Action.RENEW_SERVING),
        (89 * DAY, Action.RENEW_SERVING),
        (500 * DAY, Action.RENEW_SERVING),  # the operator was off for long
        (1461 * DAY, Action.STAGE_NEXT_CA),
        (1824 * DAY, Action.MAKE_ALL),
        (3000 * DAY, Action.MAKE_ALL),
    ],
)
def test_what_is_due_when(fresh, after, action):
    assert decide(T0 + after, fresh, NAMES) is action


@pytest.mark.parametrize(
    ("after", "action"),
    [(1462 * DAY, Action.RENEW_SERVING), (1640 * DAY, Action.RENEW_SERVING), (1642 * DAY, Action.SWITCH_CA),
     (1820 * DAY, Action.SWITCH_CA), (3000 * DAY, Action.SWITCH_CA)],
)  # fmt: skip
def test_what_is_due_when_a_next_ca_waits(staged, after, action):
    assert decide(T0 + after, staged, NAMES) is action


def test_nothing_there_means_everything_is_made():
    assert decide(T0, None, NAMES) is Action.MAKE_ALL


def test_other_dns_names_need_another_serving_certificate_and_not_another_ca(fresh):
    assert decide(T0, fresh, ("other.svc",)) is Action.RENEW_SERVING
    renewed = carry_out(Action.RENEW_SERVING, fresh, T0, ("other.svc",))
    assert decide(T0, renewed, ("other.svc",)) is Action.KEEP
    assert renewed.bundle == fresh.bundle


def test_a_life_of_ten_years_never_leaves_a_pod_of_the_last_180_days_without_trust():
    """Walks through ten years day by day, and checks each day's serving certificate against each bundle handed out."""
    material, handed_out, rotations = None, [], 0
    for day in range(0, 3650, 10):
        now = T0 + day * DAY
        while (action := decide(now, material, NAMES)) is not Action.KEEP:
            material = carry_out(action, material, now, NAMES)
            rotations += action is Action.SWITCH_CA
            assert action is not Action.MAKE_ALL or day == 0, "all trust was lost"
        handed_out.append((day, material.bundle))
        serving = x509.load_pem_x509_certificate(material.serving)
        assert serving.not_valid_before_utc <= now < serving.not_valid_after_utc
        for since, bundle in handed_out:
            if day - since <= 180:
                issuers = [ca.subject for ca in x509.load_pem_x509_certificates(bundle)]
                assert serving.issuer in issuers, f"a pod of day {since} does not trust day {day}"
    assert rotations == 2
    assert len(material.bundle) < 8192


@pytest.mark.parametrize("hours", [-12, 12])
def test_a_node_whose_clock_is_half_a_day_off_trusts_what_was_just_made(fresh, hours):
    for pem in (fresh.ca, fresh.serving):
        made = x509.load_pem_x509_certificate(pem)
        assert made.not_valid_before_utc <= T0 + timedelta(hours=hours) < made.not_valid_after_utc


def test_no_certificate_outlives_its_ca(fresh):
    late = T0 + 1820 * DAY
    serving = carry_out(Action.RENEW_SERVING, fresh, late, NAMES).serving
    assert (
        x509.load_pem_x509_certificate(serving).not_valid_after_utc
        == x509.load_pem_x509_certificate(fresh.ca).not_valid_after_utc
    )


@pytest.mark.parametrize("state", ["fresh", "staged", "switched"])
def test_what_is_kept_in_the_secret_is_read_back_the_same(fresh, staged, state):
    material = {
        "fresh": fresh,
        "staged": staged,
        "switched": carry_out(Action.SWITCH_CA, staged, T0 + 1642 * DAY, NAMES),
    }[state]
    back = Material.from_secret_data(material.secret_data())
    assert back is not None
    assert back.bundle == material.bundle
    assert back.secret_data() == material.secret_data()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: {},
        lambda d: d | {"tls.crt": b"rubbish"},
        lambda d: d | {"ca.crt": b""},
        lambda d: {k: v for k, v in d.items() if k != "ca.key"},
        lambda d: d | {"tls.key": d["ca.key"]},
        lambda d: d | {"ca.key": d["tls.key"]},
        lambda d: d | {"next-ca.key": d["ca.key"]},
        lambda d: d | {"ca.crt": carry_out(Action.MAKE_ALL, None, T0, NAMES).ca},
    ],
)
def test_a_secret_that_does_not_fit_together_counts_as_none(fresh, damage):
    assert Material.from_secret_data(damage(fresh.secret_data())) is None


class OneSecret:
    def __init__(self):
        self.secret = None
        self.version = 0

    async def get(self, resource, name, namespace):  # noqa: ARG002
        await asyncio.sleep(0)
        return copy.deepcopy(self.secret)

    async def create(self, resource, body):  # noqa: ARG002
        await asyncio.sleep(0)
        if self.secret is not None:
            raise Conflict(409, "AlreadyExists", "it is there")
        self._keep(body)

    async def merge_patch(self, resource, name, namespace, body):  # noqa: ARG002
        await asyncio.sleep(0)
        if body["metadata"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "it has changed")
        data = {k: v for k, v in (self.secret["data"] | body["data"]).items() if v is not None}
        self._keep(self.secret | {"data": data})

    def _keep(self, body):
        self.version += 1
        self.secret = copy.deepcopy(body)
        self.secret["metadata"]["resourceVersion"] = str(self.version)


def own(kube, now=lambda: T0, names=NAMES):
    return OwnAuthority(kube, "finetune-system", "tls", names, now)


async def test_replicas_that_start_together_agree_on_one_ca():
    kube = OneSecret()
    found = await asyncio.gather(*(own(kube).current() for _ in range(4)))
    assert len({bundle for bundle, _, _ in found}) == 1
    assert kube.version == 1


async def test_a_renewal_of_the_serving_certificate_keeps_the_ca_that_running_pods_trust():
    kube = OneSecret()
    bundle, serving, _ = await own(kube).current()
    later_bundle, later_serving, _ = await own(kube, now=lambda: T0 + 70 * DAY).current()
    assert later_bundle == bundle
    assert later_serving != serving


async def test_a_spoilt_secret_is_made_anew_and_leftovers_go(caplog):
    kube = OneSecret()
    await own(kube).current()
    kube.secret["data"] |= {"tls.crt": base64.b64encode(b"rubbish").decode(), "left.over": "eA=="}
    bundle, _, _ = await own(kube).current()
    assert bundle == base64.b64decode(kube.secret["data"]["ca.crt"])
    assert "left.over" not in kube.secret["data"]
    assert "will not trust them" in caplog.text


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "overwritten"])
async def test_a_secret_that_somebody_takes_away_is_restored_as_pods_that_run_trust_it(deleted, caplog):
    kube = OneSecret()
    authority_of_ours = own(kube)
    before = await authority_of_ours.current()
    if deleted:
        kube.secret = None
    else:
        kube.secret["data"] = {"tls.crt": base64.b64encode(b"rubbish").decode(), "left.over": "eA=="}
    assert await authority_of_ours.current() == before
    assert await own(kube).current() == before, "a new process reads the same"
    assert "left.over" not in kube.secret["data"]
    assert "is restored" in caplog.text


async def test_a_replica_that_finds_no_secret_does_not_displace_the_ca_that_running_pods_trust(caplog):
    kube, moment = OneSecret(), [T0]
    older = own(kube, now=lambda: moment[0])
    before = await older.current()
    kube.secret, moment[0] = None, T0 + DAY
    younger = own(kube, now=lambda: moment[0])  # it begins before the other one looks again
    assert await younger.current() != before
    assert await older.current() == before
    assert "is restored" in caplog.text
    written = kube.version
    assert await younger.current() == before, "it takes the older one over"
    assert await older.current() == before
    assert kube.version == written, "the two agree"


async def test_a_ca_that_follows_the_known_one_is_taken_over():
    kube, moment = OneSecret(), [T0]
    asleep, at_work = own(kube, now=lambda: moment[0]), own(kube, now=lambda: moment[0])
    await asleep.current()
    for days in (1461, 1642):  # it stages the next one, and signs with it
        moment[0] = T0 + days * DAY
        followed = await at_work.current()
    assert await asleep.current() == followed


async def test_a_secret_that_never_stops_changing_is_given_up_on():
    class Restless(OneSecret):
        async def create(self, resource, body):  # noqa: ARG002
            raise Conflict(409, "Conflict", "again")

    with pytest.raises(CertificatesUnusable, match="kept changing"):
        await own(Restless()).current()


@asynccontextmanager
async def echo_server(context):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def presented(port, bundle):
    """The serial number of the certificate that a strict client that trusts `bundle` is shown."""
    context = ssl.create_default_context(cadata=bundle)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(certificate).serial_number


async def test_new_connections_get_the_renewed_certificate_without_a_restart():
    kube, moment = OneSecret(), [datetime.now(UTC)]
    certificates = Certificates(own(kube, now=lambda: moment[0]))
    await certificates.load()
    async with echo_server(certificates.context) as port:
        first = await presented(port, certificates.bundle)
        assert first == await presented(port, certificates.bundle)
        moment[0] += 70 * DAY
        material = Material.from_secret_data({k: base64.b64decode(v) for k, v in kube.secret["data"].items()})
        # Renewed as it would be in 70 days, but valid now.
        renewed = carry_out(Action.RENEW_SERVING, material, datetime.now(UTC), NAMES)
        kube.secret["data"] = {k: base64.b64encode(v).decode() for k, v in renewed.secret_data().items()}
        moment[0] = datetime.now(UTC)
        await certificates.load()
        assert await presented(port, certificates.bundle) != first


async def test_a_pod_with_the_staged_bundle_trusts_both_signers():
    now = datetime.now(UTC)
    before = carry_out(Action.MAKE_ALL, None, now, NAMES)
    overlapping = carry_out(Action.STAGE_NEXT_CA, before, now, NAMES)
    after = carry_out(Action.SWITCH_CA, overlapping, now, NAMES)

    class Fixed:
        material = overlapping

        async def current(self):
            return self.material.bundle, self.material.serving, self.material.serving_key

    source = Fixed()
    certificates = Certificates(source)
    await certificates.load()
    bundle_of_the_pod = certificates.bundle
    async with echo_server(certificates.context) as port:
        await presented(port, bundle_of_the_pod)
        source.material = after
        await certificates.load()
        await presented(port, bundle_of_the_pod)
        with pytest.raises(ssl.SSLCertVerificationError):
            await presented(port, before.bundle.decode())


async def test_a_mounted_folder_is_served_and_reloaded(tmp_path, fresh):
    def write(material):
        (tmp_path / "ca.crt").write_bytes(material.bundle)
        (tmp_path / "tls.crt").write_bytes(material.serving)
        (tmp_path / "tls.key").write_bytes(material.serving_key)

    write(fresh)
    certificates = Certificates(MountedFolder(tmp_path))
    await certificates.load()
    async with echo_server(certificates.context) as port:
        first = await presented(port, certificates.bundle)
        write(carry_out(Action.RENEW_SERVING, fresh, T0, NAMES))
        await certificates.load()
        assert await presented(port, certificates.bundle) != first


async def test_a_folder_without_the_files_says_which_one(tmp_path):
    with pytest.raises(CertificatesUnusable, match=r"ca\.crt cannot be read"):
        await Certificates(MountedFolder(tmp_path)).load()


async def test_a_key_of_another_certificate_is_refused_and_the_old_one_serves_on(tmp_path, fresh):
    other = replace(fresh, serving_key=fresh.ca_key)
    (tmp_path / "ca.crt").write_bytes(other.bundle)
    (tmp_path / "tls.crt").write_bytes(other.serving)
    (tmp_path / "tls.key").write_bytes(other.serving_key)
    with pytest.raises(CertificatesUnusable, match="cannot be used"):
        await Certificates(MountedFolder(tmp_path)).load()


@pytest.mark.parametrize("trouble", [KubeError(500, "", "no"), NoCluster("no token"), OSError("no space left")])
async def test_what_keeps_a_certificate_from_being_renewed_is_said_and_tried_again(monkeypatch, caplog, fresh, trouble):
    renewed = asyncio.Event()

    class Ailing:
        asked = 0

        async def current(self):
            self.asked += 1
            if self.asked == 1:
                raise trouble
            renewed.set()
            return fresh.bundle, fresh.serving, fresh.serving_key

    monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.001)
    keeping = asyncio.create_task(Certificates(Ailing()).keep())
    await asyncio.wait_for(renewed.wait(), 10)
    keeping.cancel()
    assert f"certificates could not be renewed: {trouble}" in caplog.text


def test_the_key_file_is_gone_after_loading(tmp_path, fresh):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "ca.crt").write_bytes(fresh.bundle)
    (tmp_path / "tls.crt").write_bytes(fresh.serving)
    (tmp_path / "tls.key").write_bytes(fresh.serving_key)
    asyncio.run(Certificates(MountedFolder(tmp_path), scratch).load())
    assert list(scratch.iterdir()) == []


def test_the_settings_choose_the_source(tmp_path):
    assert isinstance(source_of(Settings(tls_dir=tmp_path), None), MountedFolder)
    assert isinstance(source_of(Settings(), Kube(None)), OwnAuthority)


def test_lives_fit_each_other():
    assert authority.RENEW_BEFORE < authority.SERVING_LIFE
    assert authority.OVERLAP + authority.SERVING_LIFE < authority.ROTATE_BEFORE < authority.CA_LIFE
