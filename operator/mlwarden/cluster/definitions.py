"""Whether mlwarden's custom resource definitions are there to stay: established, and not being deleted.

One that was deleted while an object of it carries a finalizer stays and hangs: it can be listed and watched, and takes nothing new. An
upgrade must not call that a success, nor a process that it is ready.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, NotFoundError
from mlwarden.cluster.kinds import CRD
from mlwarden.model.workload import Json

_EVERY = 10.0
NAMES = ("wardenpolicies.mlwarden.io", "revokedartifacts.mlwarden.io", "imageevidences.mlwarden.io")


def why_not(crd: Json) -> str:
    """Returns why objects of a definition, as stored, cannot be relied on; `""` where they can."""
    if crd["metadata"].get("deletionTimestamp"):
        said = [each.get("message") for each in crd.get("status", {}).get("conditions") or () if each.get("type") == "Terminating"]
        left = f": {said[0]}" if said and said[0] else ""
        return f"is being deleted{left}; look for finalizers on its objects"
    conditions = crd.get("status", {}).get("conditions") or ()
    found = any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions)
    return "" if found else "is not established"


class Definitions:
    """Looks at the definitions, again and again.

    Args:
        client: of the API server.
        names: of the definitions.

    Attributes:
        problem: one line for a probe; `""` where all is well, and before the first look.
    """

    def __init__(self, client: Client, names: Iterable[str] = NAMES) -> None:
        self._client, self._names = client, tuple(names)
        self.problem = ""

    async def run(self) -> None:
        """Looks until cancelled. What cannot be asked for says nothing: the watches say that the API server is gone."""
        while True:
            with contextlib.suppress(ApiError):
                self.problem = await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> str:
        """Returns the first problem there is.

        Raises:
            ApiError: the API server could not be asked.
        """
        for name in self._names:
            try:
                problem = why_not(await self._client.get(CRD, name))
            except NotFoundError:
                problem = "is missing; the chart's hook `mlwarden crds` applies it"
            if problem:
                return f"custom resource definition {name} {problem}"
        return ""
