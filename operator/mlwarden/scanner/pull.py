"""The pull credentials of the pods that evidence is wanted for, read where the token is and handed to the worker for one question.

What the kubelet would use: the pull Secrets that the pod names or, where it names none, those of its service account (ServiceAccount
admission copies them). Only what is written for the very image of the question goes to the worker, which reads hostile bytes; nothing is
kept or logged. A Secret that cannot be read is no failure by itself: the image may be public. It is a reason, told when the pull fails.

Rejected: watching Secrets (every secret of the cluster in this process), and giving the worker the Secrets whole.
"""

import base64
import binascii
from collections.abc import Iterator

import msgspec

from mlwarden.cluster import SECRET, SERVICE_ACCOUNT, ApiError, Client, ForbiddenError, Kind, NotFoundError
from mlwarden.errors import InputError
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, one_line
from mlwarden.evidence.pullers import Puller
from mlwarden.evidence.store import ImageEvidence
from mlwarden.model.reference import parse
from mlwarden.model.workload import Json
from mlwarden.scanner.protocol import PullCredential

MAX_CREDENTIALS = 16
_LARGEST = 1 << 14
"""Bytes of a password or token; a registry that is shown more refuses the header."""
_MAX_SECRETS = 8
_TYPES = {"kubernetes.io/dockerconfigjson": (".dockerconfigjson", False), "kubernetes.io/dockercfg": (".dockercfg", True)}
_OFF = "its pods' pull Secrets are not used: the chart's scanner.podPullSecrets is off"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        credentials: for each image, the newest puller's first.
        missing: why there are not more, in words.
    """

    credentials: tuple[PullCredential, ...] = ()
    missing: tuple[str, ...] = ()

    def explained(self, error: DefinitiveError) -> DefinitiveError:
        """Returns a failure to pull, with what was missing for it."""
        if not self.missing:
            return error
        more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
        return DefinitiveError(f"{error.message}; {self.missing[0]}{more}", hint=error.hint, retry_after=error.retry_after)


class PullSecrets:
    """Reads pull Secrets.

    Args:
        client: of the API server.
        allowed: the administrator wants them read; else nothing is.
    """

    def __init__(self, client: Client, *, allowed: bool) -> None:
        self._client, self._allowed = client, allowed

    async def credentials_for(self, evidence: ImageEvidence) -> Given:
        """Returns what may be shown for the images of one piece of evidence. Never raises but for cancellation."""
        pullers = evidence.spec.pullers
        if not pullers or not self._allowed:
            return Given(missing=(_OFF,) if pullers else ())
        try:
            names = tuple(dict.fromkeys(parse(reference).name for reference in evidence.spec.references))
        except InputError:
            return Given()
        given: dict[PullCredential, None] = {}
        missing: list[str] = []
        for puller in reversed(pullers):
            for secret in await self._secrets_of(puller, missing):
                found = await self._read(puller.namespace, secret, missing)
                given |= dict.fromkeys(_for_images(found, names))
        return Given(credentials=tuple(given)[:MAX_CREDENTIALS], missing=tuple(missing))

    async def _secrets_of(self, puller: Puller, missing: list[str]) -> tuple[str, ...]:
        if puller.secrets:
            return puller.secrets
        account = await self._get(SERVICE_ACCOUNT, "service account", puller.namespace, puller.service_account, missing)
        listed = account.get("imagePullSecrets")
        names = [each.get("name") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return tuple(name for name in names if isinstance(name, str) and name)[:_MAX_SECRETS]

    async def _read(self, namespace: str, name: str, missing: list[str]) -> Credentials:
        secret = await self._get(SECRET, "Secret", namespace, name, missing)
        if not secret:
            return Credentials()
        entry, legacy = _TYPES.get(str(secret.get("type")), ("", False))
        if not entry:
            missing.append(f"the Secret {namespace}/{name} is not a pull Secret")
            return Credentials()
        try:
            return Credentials.read(base64.b64decode(secret["data"][entry], validate=True), legacy=legacy)
        except (KeyError, TypeError, ValueError, binascii.Error):
            missing.append(f"the Secret {namespace}/{name} holds no docker configuration")
            return Credentials()

    async def _get(self, kind: Kind, called: str, namespace: str, name: str, missing: list[str]) -> dict[str, Json]:
        """The object, `{}` and a reason where there is none to be had."""
        try:
            return await self._client.get(kind, name, namespace=namespace)
        except NotFoundError:
            missing.append(f"there is no {called} {namespace}/{name}")
        except ForbiddenError:
            missing.append(f"mlwarden may not read the {called} {namespace}/{name}")
        except ApiError as error:
            missing.append(f"the {called} {namespace}/{name} cannot be read ({one_line(error.reason or type(error).__name__, 40)})")
        return {}


def _for_images(found: Credentials, names: tuple[str, ...]) -> Iterator[PullCredential]:
    for name in names:
        for credential in found.all(name):
            if _size(credential) <= _LARGEST:
                yield PullCredential(image=name, credential=credential)


def _size(credential: Credential) -> int:
    return len(credential.username) + len(credential.password) + len(credential.identity_token)
