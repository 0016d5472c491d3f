"""What the registry answered, from lines that the real cosign wrote."""

from mlwarden.evidence.exchanges import read, said
from mlwarden.evidence.failure import DefinitiveError, TransientError

HOST = "10.77.7.7:17532"
WHEN = "2026/11/24 23:16:17 "
NO_TLS = f"{WHEN}<-- http: server gave HTTP response to HTTPS client GET https://{HOST}/v2/ (742.072µs)\n"


def test_the_last_answer_counts() -> None:
    found = read(
        f"{NO_TLS}{WHEN}<-- 503 http://{HOST}/v2/a (1s)\n{WHEN}<-- 200 http://{HOST}/v2/ (1ms)\n{WHEN}<-- 200 http://{HOST}/v2/a (1s)\n"
    )
    assert found.answers == {f"{HOST}/v2/": 200, f"{HOST}/v2/a": 200}
    assert found.trouble() is None


def test_what_was_wrong_with_https_says_more_than_that_plain_http_is_closed() -> None:
    closed = f"{WHEN}<-- proxyconnect tcp: dial tcp 127.0.0.1:0: connect: connection refused GET http://{HOST}/v2/ (1ms)\n"
    assert "server gave HTTP response" in str(read(NO_TLS + closed).trouble())
    unknown = f"{WHEN}<-- tls: failed to verify certificate: x509: certificate signed by unknown authority GET https://{HOST}/v2/ (1ms)\n"
    assert "unknown authority" in str(read(unknown + closed).trouble())
    assert "proxyconnect" in str(read(closed).trouble())
    refused = f"{WHEN}<-- dial tcp {HOST}: connect: connection refused GET http://{HOST}/v2/ (1ms)\n"
    assert "connection refused" in str(read(NO_TLS + refused).trouble())


def test_a_body_in_the_log_is_no_answer() -> None:
    body = f'<-- 200 https://{HOST}/v2/a (1ms)\n{{"x": "{WHEN}<-- 200 https://{HOST}/v2/a (1ms)"}}\n'
    trouble = read(f"{WHEN}<-- 500 https://{HOST}/v2/a (1s)\n{body}").trouble()
    assert isinstance(trouble, TransientError)
    assert "500" in str(trouble)


def test_absence_is_told_of_the_manifest_that_was_asked_for() -> None:
    found = read(
        f"{WHEN}<-- 404 https://{HOST}/v2/a/manifests/sha256-1.sig (1s)\n{WHEN}<-- 200 https://{HOST}/v2/a/manifests/sha256-1.att (1s)\n"
    )
    assert found.absent("/manifests/sha256-1.sig")
    assert not found.absent("/manifests/sha256-1.att")
    assert found.asked("/manifests/sha256-1.att")
    assert not found.asked("/manifests/sha256-2.sig")


def test_the_wait_that_a_registry_asks_for_is_bounded() -> None:
    log = f"{WHEN}<-- 429 https://{HOST}/v2/a (1s)\n{WHEN}HTTP/1.1 429 Too Many Requests\nRetry-After: "
    for told, expected in (("7", 7), ("99999", 3600), ("soon", 60)):
        trouble = read(f"{log}{told}\n\n").trouble()
        assert isinstance(trouble, TransientError)
        assert trouble.retry_after == expected


def test_a_challenge_is_no_refusal_but_a_refused_token_is() -> None:
    challenge = f"{WHEN}<-- 401 https://{HOST}/v2/ (1s)\n"
    assert read(challenge).trouble() is None
    assert isinstance(read(f"{challenge}{WHEN}<-- 401 https://auth.example/token?service=a (1s)\n").trouble(), DefinitiveError)


def test_what_cosign_says_itself_is_its_last_line_of_the_kind() -> None:
    assert (
        said(f"Error: from a body\n{WHEN}Error: logged\nError: no signatures found\nerror during command execution: x\n")
        == "no signatures found"
    )
    assert said("WARNING: nothing\n") == ""
