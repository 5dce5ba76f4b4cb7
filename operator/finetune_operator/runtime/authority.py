"""The operator's own certificate authority: decides what to do with it, and does that. Pure except for random keys.

    a CA:  ├── signs, alone in the bundle ──┼── signs, its successor is in the bundle too ──┼── retired ──┤
          made                ROTATE_BEFORE its end                              OVERLAP later          end

A pod trusts the bundle it was started with. The successor is in the bundles of all pods that start during OVERLAP, so
a pod would have to run for longer than OVERLAP to meet a certificate that it does not trust.
Reads no clock and writes nothing: `certificates` does.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=5 * 365)
ROTATE_BEFORE = timedelta(days=365)
OVERLAP = timedelta(days=180)
SERVING_LIFE = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
_SKEW = timedelta(days=1)  # clocks of nodes differ, by hours if not synchronised: certificates start in the past

# Keys of the Secret.
BUNDLE = "ca.crt"
CA_KEY = "ca.key"
NEXT_CA_KEY = "next-ca.key"
SERVING = "tls.crt"
SERVING_KEY = "tls.key"


class Action(enum.Enum):
    """What has to be done to the certificates now."""

    KEEP = "keep"
    MAKE_ALL = "make all"  # there is nothing usable
    RENEW_SERVING = "renew the serving certificate"
    STAGE_NEXT_CA = "put the next CA into the bundle"
    SWITCH_CA = "sign with the next CA"


@dataclass(frozen=True, slots=True)
class Material:
    """Certificates and keys, as PEM. `ca` signs; `next_ca` is trusted already but does not sign yet.

    `retired` CAs no longer sign but have not expired: another replica may still serve what they signed.
    """

    ca: bytes
    ca_key: bytes
    serving: bytes
    serving_key: bytes
    next_ca: bytes | None = None
    next_ca_key: bytes | None = None
    retired: tuple[bytes, ...] = ()

    @property
    def bundle(self) -> bytes:
        """What clients must trust: the signing CA first, then the next one, then the retired ones."""
        parts = [self.ca, *([self.next_ca] if self.next_ca else []), *self.retired]
        return b"".join(part.strip() + b"\n" for part in parts)

    def secret_data(self) -> dict[str, bytes]:
        """The Secret's data."""
        data = {BUNDLE: self.bundle, CA_KEY: self.ca_key, SERVING: self.serving, SERVING_KEY: self.serving_key}
        return data | ({NEXT_CA_KEY: self.next_ca_key} if self.next_ca_key else {})

    @classmethod
    def from_secret_data(cls, data: Mapping[str, bytes]) -> "Material | None":
        """From a Secret's data; None if something is missing, broken or does not fit together."""
        try:
            cas = [ca.public_bytes(Encoding.PEM) for ca in x509.load_pem_x509_certificates(data[BUNDLE])]
            next_ca_key = data.get(NEXT_CA_KEY)
            found = cls(cas[0], data[CA_KEY], data[SERVING], data[SERVING_KEY])
            if next_ca_key is not None:
                found = replace(found, next_ca=cas[1], next_ca_key=next_ca_key, retired=tuple(cas[2:]))
            else:
                found = replace(found, retired=tuple(cas[1:]))
            return found if _fits(found) else None
        except (KeyError, IndexError, ValueError, TypeError, UnsupportedAlgorithm):
            return None


def decide(now: datetime, material: Material | None, names: Sequence[str]) -> Action:
    """The most urgent action at `now`; call it again after that is done.

    Args:
        now: with a time zone.
        material: what there is.
        names: DNS names that the serving certificate must have.
    """
    if material is None:
        return Action.MAKE_ALL
    ca_left = _ends(material.ca) - now
    if material.next_ca is None:
        if ca_left < RENEW_BEFORE:
            return Action.MAKE_ALL
        if ca_left < ROTATE_BEFORE:
            return Action.STAGE_NEXT_CA
    elif ca_left < RENEW_BEFORE or now - _begins(material.next_ca) >= OVERLAP:
        return Action.SWITCH_CA
    serving = x509.load_pem_x509_certificate(material.serving)
    if serving.not_valid_after_utc - now < RENEW_BEFORE or now < serving.not_valid_before_utc:
        return Action.RENEW_SERVING
    return Action.KEEP if _dns_names(serving) == set(names) else Action.RENEW_SERVING


def carry_out(action: Action, material: Material | None, now: datetime, names: Sequence[str]) -> Material:
    """The material after `action`. New keys are random; all else follows from the arguments."""
    if action is Action.MAKE_ALL or material is None:
        ca, ca_key = _make_ca(now)
        return _with_serving(Material(ca, ca_key, b"", b""), now, names)
    if action is Action.STAGE_NEXT_CA:
        next_ca, next_ca_key = _make_ca(now)
        return replace(material, next_ca=next_ca, next_ca_key=next_ca_key)
    if action is Action.SWITCH_CA and material.next_ca and material.next_ca_key:
        retired = tuple(ca for ca in (material.ca, *material.retired) if _ends(ca) > now)
        return _with_serving(Material(material.next_ca, material.next_ca_key, b"", b"", retired=retired), now, names)
    if action is Action.RENEW_SERVING:
        return _with_serving(material, now, names)
    return material


def is_displaced(known: Material, found: Material, now: datetime) -> bool:
    """Whether `found` has a CA created besides a known one, and after it: running pods trust the known one.

    A successor of the known CA has it in its bundle. Of two CAs the older one stays, so that all replicas agree.
    """
    if known.ca in {found.ca, found.next_ca, *found.retired} or _ends(known.ca) - now < RENEW_BEFORE:
        return False
    return _begins(known.ca) < _begins(found.ca)


def expiries(material: Material) -> dict[str, float]:
    """Unix times at which the serving certificate and the signing CA expire."""
    return {"serving": _ends(material.serving).timestamp(), "ca": _ends(material.ca).timestamp()}


def _make_ca(now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The date keeps the subjects of two CAs in one bundle apart.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"finetune-operator CA {now.astimezone(UTC):%Y-%m-%d}")])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), _pem(key)


def _with_serving(material: Material, now: datetime, names: Sequence[str]) -> Material:
    """The material with a new serving key and certificate, signed by its CA and expiring no later than that."""
    ca = x509.load_pem_x509_certificate(material.ca)
    ca_key = load_pem_private_key(material.ca_key, None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the CA's key is not of the kind that this operator makes")
    key = ec.generate_private_key(ec.SECP256R1())
    # The names are in the SAN; a common name has 64 characters at most and is ignored.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-operator reports")])
    life = min(SERVING_LIFE, ca.not_valid_after_utc - now)
    certificate = (
        _builder(subject, ca.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key_cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return replace(material, serving=certificate.public_bytes(Encoding.PEM), serving_key=_pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _fits(material: Material) -> bool:
    """Whether each key belongs to its certificate and the CA has signed the serving certificate."""
    pairs = [(material.ca, material.ca_key), (material.serving, material.serving_key)]
    if material.next_ca and material.next_ca_key:
        pairs.append((material.next_ca, material.next_ca_key))
    for certificate, key in pairs:
        public = x509.load_pem_x509_certificate(certificate).public_key()
        if public != load_pem_private_key(key, None).public_key():
            return False
    try:
        x509.load_pem_x509_certificate(material.serving).verify_directly_issued_by(
            x509.load_pem_x509_certificate(material.ca)
        )
    except InvalidSignature:
        return False
    return True


def _begins(pem: bytes) -> datetime:
    """When it was made."""
    return x509.load_pem_x509_certificate(pem).not_valid_before_utc + _SKEW


def _ends(pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _dns_names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return set(names.get_values_for_type(x509.DNSName))
