"""The webhook's certificates: made once, kept while good, renewed in time, and never signed by an authority that nobody knows yet."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.controllers.certificates import ANNOUNCED, CA_LIFE, LEAF_LIFE, Issued, data_of, issue, secret
from mlwarden.model.policy import Settings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SETTINGS = Settings(webhook_url="https://127.0.0.1:9443")


def leaf(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.tls["tls.crt"])


def accepted(issued: Issued, bundle: bytes, now: datetime) -> bool:
    """Whether somebody who has `bundle` accepts the webhook's certificate at `now`."""
    certificate = leaf(issued)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return False
    for authority in x509.load_pem_x509_certificates(bundle):
        if authority.subject == certificate.issuer and authority.not_valid_before_utc <= now < authority.not_valid_after_utc:
            certificate.verify_directly_issued_by(authority)
            return True
    return False


def test_the_first_ones_are_for_the_service_and_the_address() -> None:
    issued = issue(SETTINGS, {}, {}, now=NOW)
    names = leaf(issued).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "mlwarden-webhook.mlwarden-system.svc" in names.get_values_for_type(x509.DNSName)
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    key = leaf(issued).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert accepted(issued, issued.bundle, NOW)
    assert set(issued.tls) == {"tls.crt", "tls.key", "ca.crt"}  # the key of the authority is not for the webhook


def test_what_is_good_is_kept_byte_for_byte() -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    assert issue(SETTINGS, first.ca, first.tls, now=NOW + timedelta(days=1)) == first


def test_the_certificate_is_renewed_after_two_thirds_of_its_life() -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    assert issue(SETTINGS, first.ca, first.tls, now=first.renew_at - timedelta(minutes=1)).tls == first.tls
    later = issue(SETTINGS, first.ca, first.tls, now=first.renew_at)
    assert later.tls["tls.crt"] != first.tls["tls.crt"]
    assert later.bundle == first.bundle
    assert first.renew_at < NOW + LEAF_LIFE * 0.7


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("key", ["tls.crt", "tls.key"])
def test_what_somebody_spoiled_is_made_again(key: str, rubbish: bytes) -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    for again in (
        issue(SETTINGS, {**first.ca, key: rubbish}, first.tls, now=NOW),
        issue(SETTINGS, first.ca, {**first.tls, key: rubbish}, now=NOW),
    ):
        assert accepted(again, again.bundle, NOW)


def test_a_key_of_another_certificate_is_not_used() -> None:
    first, other = issue(SETTINGS, {}, {}, now=NOW), issue(SETTINGS, {}, {}, now=NOW)
    again = issue(SETTINGS, first.ca, {**first.tls, "tls.key": other.tls["tls.key"]}, now=NOW)
    assert again.tls["tls.crt"] != first.tls["tls.crt"]


def test_other_names_make_another_certificate() -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    other = issue(Settings(webhook_url="https://webhook.example:9443"), first.ca, first.tls, now=NOW)
    assert other.ca == first.ca
    names = leaf(other).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "webhook.example" in names.get_values_for_type(x509.DNSName)


def test_a_secret_holds_what_was_issued() -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    assert data_of(secret(SETTINGS, "x", first.tls)) == first.tls
    assert data_of({"data": {"tls.crt": "not base64!", "a": base64.b64encode(b"b").decode(), "n": None}}) == {"a": b"b"}
    assert data_of(None) == {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(min_value=0.01, max_value=15), min_size=1, max_size=120))
def test_no_request_is_dropped_over_the_years(steps: list[float]) -> None:
    """Whoever has the bundle of one look accepts the certificate of the next one, a quarter of an hour up to two weeks later."""
    now, issued = NOW, issue(SETTINGS, {}, {}, now=NOW)
    for days in [*steps, *([10.0] * int(CA_LIFE.days / 10))]:
        bundle = issued.bundle
        now += timedelta(days=max(days, 0.01))
        issued = issue(SETTINGS, issued.ca, issued.tls, now=now)
        assert accepted(issued, bundle, now) or days > LEAF_LIFE.days
        assert accepted(issued, issued.bundle, now)
        assert len(x509.load_pem_x509_certificates(issued.bundle)) <= 3


def test_an_authority_is_announced_a_day_before_it_signs() -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    now = NOW + CA_LIFE * 0.67
    announced = issue(SETTINGS, first.ca, first.tls, now=now)
    assert "next.crt" in announced.ca
    assert announced.bundle.startswith(first.bundle)
    assert len(announced.bundle) > len(first.bundle)
    soon = issue(SETTINGS, announced.ca, announced.tls, now=now + ANNOUNCED / 2)
    assert soon.ca == announced.ca
    promoted = issue(SETTINGS, announced.ca, announced.tls, now=now + ANNOUNCED * 1.1)
    assert promoted.ca["tls.crt"] == announced.ca["next.crt"]
    assert promoted.ca["previous.crt"] == announced.ca["tls.crt"]
    assert accepted(promoted, announced.bundle, now + ANNOUNCED * 1.1)
    assert accepted(soon, promoted.bundle, now + ANNOUNCED * 1.1)  # a webhook that has not read the new one yet


def test_after_a_long_sleep_there_is_a_good_one_at_once() -> None:
    first = issue(SETTINGS, {}, {}, now=NOW)
    now = NOW + CA_LIFE * 2
    again = issue(SETTINGS, first.ca, first.tls, now=now)
    assert accepted(again, again.bundle, now)
