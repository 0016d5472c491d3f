"""What a program that pulls hears from the relay: what the registry said, and never more."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from mlwarden.evidence.registry import MEDIA_TYPES, Registry
from mlwarden.evidence.relay import relayed
from mlwarden.model.reference import parse

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
MANIFEST = MEDIA_TYPES[2]
DIGEST = "sha256:" + "a" * 64


async def registry(request: web.Request) -> web.StreamResponse:
    what = request.path.rpartition("/")[2]
    if what == "short":
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b"x" * 10)
        if request.transport is not None:
            request.transport.abort()
        return answer
    status, body, headers = {
        "good": (200, b'{"layers": [{"digest": "x", "urls": []}]}', {"Docker-Content-Digest": DIGEST}),
        "elsewhere": (200, b'{"layers": [{"digest": "x", "URLs": ["http://127.0.0.1/"]}]}', {}),
        "nothing": (404, b"", {}),
        "denied": (403, b"", {}),
        "busy": (429, b"", {"Retry-After": "7"}),
        "broken": (500, b"", {}),
        "away": (307, b"", {"Location": "https://169.254.169.254/"}),
    }.get(what, (200, f"{request.path_qs} {request.headers['Accept']}".encode(), {}))
    return web.Response(status=status, body=body, headers={"Content-Type": MANIFEST, **headers})


@pytest.fixture
async def talk(serve: Serve) -> AsyncIterator[Callable[[str], Awaitable[tuple[int, bytes, str]]]]:
    host = await serve(registry)
    async with (
        Registry(plain_http=frozenset({host}), timeout=5) as client,
        aiohttp.ClientSession() as session,
        relayed(functools.partial(client._pass_on, parse(f"{host}/team/x:1"))) as relay,
    ):

        async def ask(path: str) -> tuple[int, bytes, str]:
            url = f"http://{relay.host}/v2/{path.replace('REPOSITORY', relay.secret)}"
            async with session.get(url, headers={"Accept": "application/x"}, allow_redirects=False) as answer:
                return answer.status, await answer.read(), relay.trouble.message if relay.trouble else ""

        yield ask


@pytest.mark.parametrize(
    ("what", "status", "trouble"),
    [
        ("good", 200, ""),
        ("elsewhere", 403, "somewhere else than in the registry"),
        ("nothing", 404, ""),
        ("denied", 403, "denies access"),
        ("busy", 429, "rate limit"),
        ("broken", 500, "answers 500"),
        ("away", 403, "where no registry may be"),
    ],
)
async def test_what_the_registry_said_is_passed_on(
    talk: Callable[[str], Awaitable[tuple[int, bytes, str]]], what: str, status: int, trouble: str
) -> None:
    got, _, why = await talk(f"REPOSITORY/manifests/{what}")
    assert (got, trouble in why, bool(why)) == (status, True, bool(trouble))


async def test_the_repository_is_that_of_the_registry_and_the_question_as_it_was(
    talk: Callable[[str], Awaitable[tuple[int, bytes, str]]],
) -> None:
    assert await talk("REPOSITORY/blobs/x") == (200, b"/v2/team/x/blobs/x application/x", "")
    asked = f"REPOSITORY/referrers/{DIGEST}?artifactType=application%2Fvnd.dev"
    status, _, why = await talk(asked)
    assert (status, why) == (403, "the registry's document is no JSON")
    assert (await talk(""))[0] == 200


@pytest.mark.parametrize("path", ["team/x/manifests/good", "REPOSITORY/tags/list", "REPOSITORY/blobs/uploads/", "_catalog"])
async def test_what_it_does_not_know_it_does_not_call_absent(talk: Callable[[str], Awaitable[tuple[int, bytes, str]]], path: str) -> None:
    assert (await talk(path))[0] == 501


async def test_a_body_that_ends_early_does_not_look_whole(talk: Callable[[str], Awaitable[tuple[int, bytes, str]]]) -> None:
    with pytest.raises(aiohttp.ClientError):
        await talk("REPOSITORY/blobs/short")
