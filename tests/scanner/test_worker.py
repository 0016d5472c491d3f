"""Agent and worker over their socket, with work that is made up."""

import asyncio
import hashlib
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mlwarden.errors import EvidenceError
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.history import Looked
from mlwarden.evidence.vex import Document, PackageURL, Statement
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan, Suppressed
from mlwarden.model.signing import Authority, Demand, Place, Proof, Proven, Signer
from mlwarden.scanner.canary import Canary, UnfitError
from mlwarden.scanner.protocol import (
    ANSWER_LIMIT,
    Documents,
    Failed,
    Look,
    LookAgain,
    PullCredential,
    Resolve,
    State,
    Verify,
    Worker,
    encode,
)
from mlwarden.scanner.worker import Scratch, Service, serve

DIGEST = Digest("sha256:" + "a" * 64)
DEMAND = Demand(authority=Authority(name="team", key="PEM"))
PROOF = Proof(demand="one", outcome=Proven.MISSING, at=datetime(2026, 11, 24, tzinfo=UTC))
SCAN = Scan(scanner="trivy 0.72.0", scanned_at=datetime(2026, 11, 24, tzinfo=UTC), counts={"HIGH": 2})


class Gatherer:
    """Does what it is told."""

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self.work = work
        self.credentials = Credentials()

    async def resolve(self, text: str, credentials: Credentials) -> object:
        self.credentials = credentials
        return await self.work()

    async def known(self, candidates: tuple[str, ...], documents: object) -> None:
        return None

    async def scan(
        self, candidates: tuple[str, ...], credentials: Credentials, *, documents: Sequence[object] = (), fresh: bool = False
    ) -> object:
        self.credentials = credentials
        return await self.work()

    async def prove(self, candidates: Sequence[str], demands: Mapping[str, Demand], credentials: Credentials) -> object:
        self.credentials = credentials
        return await self.work()


@asynccontextmanager
async def worker(
    tmp_path: Path, work: Callable[[], Awaitable[object]], *, canaries: Sequence[Canary] = (), trivy: object = None
) -> AsyncIterator[Worker]:
    made = Gatherer(work)
    roots = {name: tmp_path / name for name in ("own", "lost")}
    roots["own"].write_text("a trust root", encoding="utf-8")
    service = Service(gatherer=made, trivy=trivy, prover=made, canaries=canaries, workers=2, roots=roots)
    task = asyncio.create_task(serve(service, tmp_path / "s"))
    async with asyncio.timeout(20):
        while not (tmp_path / "s").exists():
            await asyncio.sleep(0.001)
        yield Worker(str(tmp_path / "s"), verifier=str(tmp_path / "s"), timeout=10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def raising(error: Exception) -> object:
    raise error


async def test_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    place = Place(reference=f"x@{DIGEST}", at=PROOF.at, answered={"one": PROOF.at})
    answers: list[object] = [DIGEST, SCAN, Looked(proofs=(PROOF,), places=(place,))]

    async def work() -> object:
        return answers.pop(0)

    async with worker(tmp_path, work) as agent:
        assert await agent.resolve("x:1") == DIGEST
        assert await agent.scan((f"x@{DIGEST}",)) == SCAN
        assert await agent.verify((f"x@{DIGEST}",), {"one": DEMAND}) == Looked(proofs=(PROOF,), places=(place,))


async def test_a_credential_comes_with_its_question_for_its_image_and_is_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = PullCredential(image="reg.example/team/x", credential=Credential(username="ana", password="hunter2", identity_token="hunter3"))
    made = Gatherer(lambda: raising(ZeroDivisionError("a defect")))
    service = Service(gatherer=made, trivy=None, prover=made, canaries=(), workers=2)
    for question in (
        Resolve(reference="reg.example/team/x:1", credentials=(key,)),
        Look(references=("x",), credentials=(key,)),
        Verify(references=("x",), demands={}, credentials=(key,)),
    ):
        assert msgspec.json.decode(encode(question))["credentials"][0]["credential"]["password"] == "hunter2"
        made.credentials = Credentials()
        await service.answer(question)
        assert made.credentials.all("reg.example/team/x") == (key.credential,)
        assert made.credentials.all("other.example/team/x") == ()
    assert "ZeroDivisionError" in caplog.text
    assert "hunter" not in caplog.text


@pytest.mark.parametrize("proofs", [(), ("PROOF", "PROOF"), ("other",)])
async def test_an_answer_to_other_demands_is_no_answer(tmp_path: Path, proofs: tuple[str, ...]) -> None:
    async def work() -> object:
        made = tuple(PROOF if each == "PROOF" else msgspec.structs.replace(PROOF, demand=each) for each in proofs)
        return Looked(proofs=made, places=())

    async with worker(tmp_path, work) as agent:
        with pytest.raises(TransientError, match="other demands"):
            await agent.verify((f"x@{DIGEST}",), {"one": DEMAND})


@pytest.mark.parametrize(("repository", "demand"), [("y", "one"), ("x", "two")])
async def test_an_answer_about_other_places_is_no_answer(tmp_path: Path, repository: str, demand: str) -> None:
    async def work() -> object:
        place = Place(reference=f"{repository}@{DIGEST}", at=PROOF.at, answered={demand: PROOF.at})
        return Looked(proofs=(PROOF,), places=(place,))

    async with worker(tmp_path, work) as agent:
        with pytest.raises(TransientError, match="other places"):
            await agent.verify((f"x@{DIGEST}",), {"one": DEMAND})


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (DefinitiveError("not there\nat all", retry_after=3), DefinitiveError, "not there at all"),
        (TransientError("slow", retry_after=7), TransientError, "slow"),
        (EvidenceError("old trivy"), TransientError, "not fit for use: old trivy"),
        (ZeroDivisionError("secret"), TransientError, "the scanner failed: ZeroDivisionError"),
    ],
)
async def test_a_failure_is_an_answer_of_its_kind(tmp_path: Path, error: Exception, kind: type[Exception], words: str) -> None:
    async with worker(tmp_path, lambda: raising(error)) as agent:
        with pytest.raises(kind, match=words):
            await agent.resolve("x:1")


async def test_an_agent_that_goes_away_stops_the_work(tmp_path: Path) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def work() -> object:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return None

    async with worker(tmp_path, work) as agent:
        task = asyncio.create_task(agent.scan((f"x@{DIGEST}",)))
        await started.wait()
        task.cancel()
        await stopped.wait()


async def test_a_worker_that_is_not_there_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        await Worker(str(tmp_path / "nothing"), verifier="").resolve("x:1")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"nonsense\n",
        b"null\n",
        b"\xff\n",
        b"[" * 5000 + b"\n",
        b'{"is":"resolved","digest":"sha256:short"}\n',
        b'{"is":"resolved","digest":5}\n',
        b'{"is":"state","trivy":"1","database_at":null}\n',
        b'{"is":"scanned","scan":{}}\n',
        b'{"is":"resolved","digest":"' + DIGEST.encode() + b'","extra":1}\n',
        b"x" * (ANSWER_LIMIT + 10),
        b'{"is":"resolved"',
    ],
)
async def test_a_worker_that_was_taken_over_can_say_nothing_but_answers(tmp_path: Path, line: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        writer.close()

    async with await asyncio.start_unix_server(talk, tmp_path / "s"):
        with pytest.raises((TransientError, DefinitiveError)):
            await Worker(str(tmp_path / "s"), verifier="", timeout=5).resolve("x:1")


@pytest.mark.parametrize("line", [b"", b"\n", b"null\n", b"[" * 5000 + b"\n", b"x" * 100_000 + b"\n", b'{"is":"shutdown"}\n'])
async def test_nonsense_on_the_socket_ends_that_connection_alone(tmp_path: Path, line: bytes) -> None:
    async def work() -> object:
        return DIGEST

    async with worker(tmp_path, work) as agent:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(line)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await agent.resolve("x:1") == DIGEST


async def test_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with worker(tmp_path, lambda: raising(TransientError("x"))):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


async def test_a_shared_socket_is_for_the_group_of_its_directory_too(tmp_path: Path) -> None:
    task = asyncio.create_task(serve(Service(workers=1, canaries=()), tmp_path / "s", shared=True))
    async with asyncio.timeout(20):
        while not (tmp_path / "s").exists():
            await asyncio.sleep(0.001)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_neither_answers_what_is_for_the_other(tmp_path: Path) -> None:
    async def work() -> object:
        raise AssertionError("it was asked")

    worker = Service(gatherer=Gatherer(work), workers=1, canaries=())
    verifier = Service(prover=Gatherer(work), workers=1, canaries=())
    about = (f"x@{DIGEST}",)
    for service, questions in (
        (worker, (Verify(references=about, demands={"one": DEMAND}), Documents(references=about, demands={"one": DEMAND}))),
        (verifier, (Look(references=about), Resolve(reference="x:1"), LookAgain(digests=(DIGEST,)))),
    ):
        for question in questions:
            said = await service.answer(question)
            assert isinstance(said, Failed)
            assert "is not asked about" in said.reason


SIGNER = Signer(subject="security@example.com", issuer="https://issuer.example.com")
EXCUSED = Suppressed(id="CVE-2026-1", package="openssl", status="not_affected", source="security", signer=SIGNER)


@pytest.mark.parametrize(
    ("statements", "kept"),
    [((SIGNER,), (EXCUSED,)), ((None,), ()), ((Signer(subject="somebody"),), ()), ((), ())],
    ids=["by who signed", "by nobody", "by somebody else", "nothing said"],
)
async def test_an_excuse_that_nobody_signed_is_none(tmp_path: Path, statements: tuple[Signer | None, ...], kept: object) -> None:
    """The worker, which reads layers, may have been taken over; whose word there is says the verifier."""

    async def work() -> object:
        return msgspec.structs.replace(SCAN, suppressed=(EXCUSED,))

    said = tuple(
        Statement(
            ids=frozenset({"CVE-2026-1"}),
            status="not_affected",
            justification="unused",
            at=SCAN.scanned_at,
            images=frozenset({DIGEST}),
            packages=(PackageURL("deb", "debian", "openssl", "3", (("arch", "amd64"),), ""),),
            signer=signer,
        )
        for signer in statements
    )
    async with worker(tmp_path, work) as agent:
        scan = await agent.scan((f"x@{DIGEST}",), documents=(Document(source="security", statements=said),))
    assert scan.suppressed == kept


async def test_the_state_is_that_of_both_and_trust_roots_are_the_verifiers(tmp_path: Path) -> None:
    states = {
        "s": State(trivy="0.72.0", database_at=None, canary_at=SCAN.scanned_at, scans=2, roots={"own": "forged"}),
        "v": State(trivy="", database_at=None, canary_at=SCAN.scanned_at - timedelta(hours=1), unfit="cosign", roots={"own": "true"}),
    }

    def says(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(encode(states[name]))
            writer.close()

        return talk

    both = Worker(str(tmp_path / "s"), verifier=str(tmp_path / "v"), timeout=5)
    async with await asyncio.start_unix_server(says("s"), tmp_path / "s"):
        with pytest.raises(TransientError, match="verifier cannot be reached"):
            await both.state()
        async with await asyncio.start_unix_server(says("v"), tmp_path / "v"):
            found = await both.state()
    assert (found.trivy, found.scans, found.unfit, found.roots) == ("0.72.0", 2, "cosign", {"own": "true"})
    assert found.canary_at == SCAN.scanned_at - timedelta(hours=1)


def test_scratch_of_the_dead_is_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    living = Scratch(tmp_path)
    dead = tmp_path / "mlwarden-worker-dead"
    (dead / "scan-x").mkdir(parents=True)
    (dead / "lock").touch()
    other = Scratch(tmp_path)
    assert not dead.exists()
    assert living.path.exists()
    living.close()
    other.close()
    assert not list(tmp_path.iterdir())


class FakeTrivy:
    """Has a version and no database."""

    async def version(self) -> str:
        return "0.72.0"

    def database(self) -> None:
        raise TransientError("trivy has no vulnerability database")


async def test_a_worker_whose_tools_get_it_wrong_says_nothing_more_and_says_so(tmp_path: Path) -> None:
    asked = 0

    async def ask() -> None:
        raise UnfitError("trivy did not find it")

    async def work() -> object:
        nonlocal asked
        asked += 1
        return SCAN

    async with worker(tmp_path, work, canaries=[Canary(ask)], trivy=FakeTrivy()) as agent:
        with pytest.raises(TransientError, match="the scanner is not fit for use: trivy did not find it"):
            await agent.scan((f"x@{DIGEST}",))
        state = await agent.state()
    assert (state.unfit, state.canary_at, asked) == ("trivy did not find it", None, 0)
    assert state.roots == {"own": hashlib.sha256(b"a trust root").hexdigest()}


async def test_what_was_found_while_the_tools_were_found_wrong_is_not_passed_on(tmp_path: Path) -> None:
    canaries: list[Canary] = []

    async def ask() -> None:
        pass

    async def work() -> object:
        canaries[0].unfit = "trivy did not find it"
        return SCAN

    canaries.append(Canary(ask))
    async with worker(tmp_path, work, canaries=canaries) as agent:
        with pytest.raises(TransientError, match="not fit for use"):
            await agent.scan((f"x@{DIGEST}",))
