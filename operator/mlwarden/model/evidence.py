"""What is known about an image, as pure values: from a custom resource, a file, or a test."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from mlwarden.model.digest import Digest
from mlwarden.model.limits import Defaults
from mlwarden.model.platform import Platform
from mlwarden.model.revocation import Revoked
from mlwarden.model.signing import Proof, Signer

SIGNATURES = "signatures of "
"""Before `repository@sha256:…`: what is wanted is known about its signatures, not about what is in it. No reference has a space."""


MODELS = frozenset(
    {
        "application/vnd.cncf.model.config.v1+json",
        "application/vnd.docker.ai.model.config.v0.1+json",
        "application/vnd.kitops.modelkit.config.v1+json",
        "application/vnd.kitops.modelkit.config.v1beta1+json",
    }
)
"""What the configuration of a model artifact is called: ModelPack, Docker's models, KitOps. Anything may call itself so."""
NOT_READ = "it is a model artifact, in which the scanner does not look for packages"
"""In `Scan.blind`."""


class Phase(StrEnum):
    """How far gathering has come."""

    PENDING = "Pending"
    READY = "Ready"
    FAILED = "Failed"


class Vulnerability(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One vulnerable package, as the scanner reported it; `fixed` is empty where no fixed version exists, `purl` is its package URL."""

    id: str
    package: str
    installed: str
    fixed: str = ""
    severity: str  # CRITICAL, HIGH, MEDIUM, LOW, UNKNOWN: Trivy's words
    purl: str = ""


class Weakness(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that is wrong with the image itself: a secret left in it, or how it is configured. Never holds a secret's value.

    Attributes:
        id: the scanner's rule, such as `aws-access-key-id` or `DS-0002`.
        severity: CRITICAL, HIGH, MEDIUM, LOW, UNKNOWN.
        title: what the rule is about.
        where: the file in the image, with the line for a secret.
    """

    id: str
    severity: str
    title: str = ""
    where: str = ""


class Suppressed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A vulnerability of which somebody says, in a VEX document whose signature was verified, that it does not matter here.

    It is still in `counts`: whose word counts is for each policy to say.

    Attributes:
        id: the vulnerability.
        package: the vulnerable package.
        installed: its version.
        fixed: the version with the fix, empty where there is none.
        severity: of the vulnerability, in Trivy's words.
        status: `not_affected` or `fixed`.
        justification: why, in the words of the document.
        source: who says so: what the caller named the verified document.
        signer: who signed it.
        at: when that was said, UTC, by the document's own word; where that lay in the future, when it was first seen; None: nobody knows.
        dated: its own date, where that lay in the future when it was first seen.
    """

    id: str
    package: str
    installed: str = ""
    fixed: str = ""
    severity: str = "UNKNOWN"
    status: str = ""
    justification: str = ""
    source: str = ""
    signer: Signer | None = None
    at: datetime | None = None
    dated: datetime | None = None

    @property
    def suppresses(self) -> bool:
        """Whether it says that the vulnerability does not matter."""
        return self.status not in {"affected", "under_investigation"}


class Unheard(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A VEX document that was found, or might be there, and does not count.

    Attributes:
        source: by whom it was to be: as in `Suppressed`.
        reason: why it does not count, one line.
        id: the vulnerability that it names; empty where the whole document does not count.
    """

    source: str
    reason: str
    id: str = ""


class Scan(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The summary of one scan of one digest. Bounded: the worst of everything only, `counts` and its like have all.

    Attributes:
        scanner: name and version, `trivy 0.72.0`.
        scanned_at: when the scan ended, UTC; also where it was made from the kept list of packages, with a newer database.
        read_at: when the image itself was read for it, where that was earlier than `scanned_at`.
        database_at: `UpdatedAt` of the vulnerability database it used, UTC.
        os: family and version, empty where none was recognised.
        eol: the operating system, in this version, gets no more updates.
        manifests: what a node could run of an index, and was scanned; empty where the digest is no index.
        platforms: of an index: nodes of which everything that they could run was scanned, `os/architecture`; empty where that was not
            written down (by an earlier version).
        unjudged: of an index: for which platforms it has images, of whatever system, that were not scanned; the first of them.
        packages: how many packages were recognised, of the operating system and of languages.
        scanners: what was looked for: `vuln`, `secret`, `misconfig`. Nothing was found of what was not looked for.
        counts: severity → number of vulnerabilities that have a fix; the key `unfixed` counts those that have none.
        unfixed: severity → number of vulnerabilities that have no fix.
        vulnerabilities: the worst ones, fixable first, at most 25.
        suppressed: vulnerabilities that a verified VEX document speaks of, at most 50; they are in `counts` and in `unfixed`, too.
        affirmed: vulnerabilities of which the newest word of somebody is that they do matter, at most 50; an older excuse does not count.
        unheard: VEX documents that do not count, at most 10, with the reason.
        secret_counts: severity → number of secrets found in files and in the image's configuration.
        secrets: the worst of them, at most 10.
        misconfiguration_counts: severity → number of mistakes in the image's configuration.
        misconfigurations: the worst of them, at most 10.
        blind: what the scanner cannot see in this image, in words (`no OS and no packages recognised`); not empty means `Unknown`.
        artifact: media type of the configuration of what calls itself a model artifact; empty for an image.
        anonymous: it was read without a credential, from the repository that is named: what is in it is nobody's secret.
    """

    scanner: str
    scanned_at: datetime
    read_at: datetime | None = None
    database_at: datetime | None = None
    os: str = ""
    eol: bool = False
    manifests: tuple[Digest, ...] = ()
    platforms: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    packages: int = 0
    scanners: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    unfixed: dict[str, int] = {}
    vulnerabilities: tuple[Vulnerability, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    affirmed: tuple[Suppressed, ...] = ()
    unheard: tuple[Unheard, ...] = ()
    secret_counts: dict[str, int] = {}
    secrets: tuple[Weakness, ...] = ()
    misconfiguration_counts: dict[str, int] = {}
    misconfigurations: tuple[Weakness, ...] = ()
    blind: tuple[str, ...] = ()
    artifact: str = ""
    anonymous: bool = False


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one digest.

    Attributes:
        digest: the image (index or manifest) digest.
        phase: Pending until the scanner has answered; Failed with `reason` where it cannot.
        reason: why it is Pending or Failed, one line.
        scan: the summary, where phase is Ready.
        asked_at: when an answer was last asked for, by the clock of whoever asked; None where it is not known.
        answered_at: when the last answer was made.
        pulled_for: namespaces for whose pods it was pulled.
        answered: `repository@sha256:…` → whose VEX documents (as in `Suppressed.source`) → when it was last asked for them.
    """

    digest: Digest
    phase: Phase
    reason: str = ""
    scan: Scan | None = None
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    pulled_for: frozenset[str] = frozenset()
    answered: Mapping[str, Mapping[str, datetime]] = {}


class Proofs(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the signatures of one digest.

    Attributes:
        digest: of the image.
        phase: Pending until they were looked at; Failed with `reason` where they cannot be.
        reason: why it is Pending or Failed, one line.
        proofs: by demand.
        pulled_for: namespaces for whose pods they were looked for.
        answered: `repository@sha256:…` → demand → when it last had an answer there.
    """

    digest: Digest
    phase: Phase
    reason: str = ""
    proofs: Mapping[str, Proof] = {}
    pulled_for: frozenset[str] = frozenset()
    answered: Mapping[str, Mapping[str, datetime]] = {}


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag pointed at, and when. `digest` is None where resolving failed, with `reason`; `asked_at` as in `ImageFacts`."""

    digest: Digest | None
    at: datetime
    reason: str = ""
    asked_at: datetime | None = None


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from asking to the answer, of the last answers: the queue, the registry and the scanner as they are now."""

    scans: tuple[float, ...] = ()
    resolutions: tuple[float, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything from outside that an evaluation may use: evidence, namespace and time are arguments, never looked up.

    Attributes:
        now: the time of the evaluation, UTC, timezone-aware.
        namespace: the Namespace object (`metadata` with name and labels at least), `{}` where unknown.
        profile: the profile in force there.
        user: the `userInfo` of the request, `{}` outside a request.
        operation: CREATE, UPDATE, DELETE or CONNECT.
        old: the old object on UPDATE, else None.
        plural: the resource's name in the request, `""` outside of one.
        images: digest → what is known.
        resolutions: image reference as written → what it pointed at.
        proofs: digest → what is known about its signatures.
        revoked: what must not run any more.
        waits: how long the last answers took, to say when it is worth trying again.
        nodes: name of a node → its platform, `os/architecture`.
        platform: what the platform puts into pods.
        limits: what the namespace's LimitRanges fill into pods; None: they were not read.
        audience: the namespace whose people hear the answers, `""` for anybody at all; None: whoever may read evidence.
    """

    now: datetime
    namespace: Mapping[str, object]
    profile: str
    user: Mapping[str, object] = {}
    operation: str = "CREATE"
    old: Mapping[str, object] | None = None
    plural: str = ""
    images: Mapping[Digest, ImageFacts] = {}
    resolutions: Mapping[str, Resolution] = {}
    proofs: Mapping[Digest, Proofs] = {}
    revoked: Revoked = Revoked()
    waits: Waits = Waits()
    nodes: Mapping[str, str] = {}
    platform: Platform = Platform()
    limits: Defaults | None = Defaults()
    audience: str | None = None

    def hears(self, digest: Digest) -> bool:
        """Whether the audience may be told what was found in an image: its own pods pulled it."""
        if self.audience is None:
            return True
        known = self.images.get(digest), self.proofs.get(digest)
        return any(each is not None and self.audience in each.pulled_for for each in known)

    def is_public(self, digest: Digest) -> bool:
        """Whether anybody may be told what is in an image: the scanner needed no credential to read it."""
        known = self.images.get(digest)
        return known is not None and known.scan is not None and known.scan.anonymous
