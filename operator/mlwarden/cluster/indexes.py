"""Which manifests stand behind which index, by the evidence there is: what is revoked by the one name is so by the other, too.

An index and its manifests are different digests of the same thing. Whoever names a manifest of a revoked index runs what was revoked, and
so may a node that picks a revoked manifest from an index. Kept in both directions, so that a revocation costs two look-ups and a request
none.
"""

from collections.abc import Set as AbstractSet

from mlwarden.model.digest import Digest
from mlwarden.model.evidence import ImageFacts


class Indexes:
    """What belongs together; as large as the evidence, which has a few manifests for each index."""

    def __init__(self) -> None:
        self._manifests: dict[Digest, tuple[Digest, ...]] = {}
        self._indexes: dict[Digest, set[Digest]] = {}

    def note(self, of: Digest, facts: ImageFacts | None) -> frozenset[Digest]:
        """Keeps what is known about a digest now, None for nothing any more. Returns what it changes something for."""
        before = self._manifests.pop(of, ())
        after = facts.scan.manifests if facts is not None and facts.scan is not None else ()
        if after:
            self._manifests[of] = after
        for each in set(before) - set(after):
            self._indexes[each].discard(of)
            if not self._indexes[each]:
                del self._indexes[each]
        for each in set(after) - set(before):
            self._indexes.setdefault(each, set()).add(of)
        changed = set(before) ^ set(after)
        return frozenset({of, *changed}) if changed else frozenset()

    def related(self, to: Digest) -> AbstractSet[Digest]:
        """Returns the manifests of an index, and the indexes of a manifest."""
        return {*self._manifests.get(to, ()), *self._indexes.get(to, ())}
