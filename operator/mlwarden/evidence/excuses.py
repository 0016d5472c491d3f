"""What is known of excuses after one more scan. Pure: the time is an argument.

As with attestations (`history`): that a vulnerability matters after all is not forgotten because the repository that said so was not asked
this time, or a copy has only the older document. An excuse that is not there any more is over when every place that was heard before was
heard again; until then it counts, as old as it is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from mlwarden.evidence.history import is_complete
from mlwarden.evidence.summary import worst_of
from mlwarden.model.evidence import Scan, Suppressed
from mlwarden.model.signing import Place
from mlwarden.model.suppression import newer

_Key = tuple[object, ...]


def merged(
    before: Scan | None,
    made: Scan,
    now: datetime,
    *,
    sources: Collection[str],
    answered: Mapping[str, Mapping[str, datetime]],
    asked: Sequence[Place],
) -> Scan:
    """Returns a scan with what is known of excuses.

    Args:
        before: the scan before, None where there was none.
        made: the scan now, with what its documents say.
        now: the time.
        sources: whose documents are listened to.
        answered: what each place had answered before.
        asked: what each has answered now.
    """
    again = {source: {place.reference for place in asked if source in place.answered} for source in sources}
    complete = {source for source in sources if is_complete(source, answered, again[source], now)}
    found = {(each.id, each.package, each.installed) for each in made.vulnerabilities}
    old = {_key(each): each for each in _said(before) if each.source in sources}
    new = {_key(each): _seen(each, old.get(_key(each)), now) for each in _newest(_said(made))}
    for key, each in old.items():
        # Of what is not found any more there is nothing to excuse, and counts must not become smaller for it.
        stays = not each.suppresses or (each.source not in complete and (each.id, each.package, each.installed) in found)
        if stays and (key not in new or newer(each, new[key])):
            new[key] = each
    every = list(new.values())
    suppressed, affirmed = worst_of(each for each in every if each.suppresses), worst_of(each for each in every if not each.suppresses)
    return msgspec.structs.replace(made, suppressed=suppressed, affirmed=affirmed)


def _said(scan: Scan | None) -> tuple[Suppressed, ...]:
    return (*scan.suppressed, *scan.affirmed) if scan is not None else ()


def _key(each: Suppressed) -> _Key:
    return each.source, each.signer, each.id, each.package, each.installed


def _newest(said: Iterable[Suppressed]) -> list[Suppressed]:
    found: dict[_Key, Suppressed] = {}
    for each in said:
        if _key(each) not in found or newer(each, found[_key(each)]):
            found[_key(each)] = each
    return list(found.values())


def _seen(each: Suppressed, old: Suppressed | None, now: datetime) -> Suppressed:
    """A date in the future counts as the time it was first seen."""
    if old is not None and old.dated is not None and old.dated == each.at and old.status == each.status:
        return msgspec.structs.replace(each, at=old.at, dated=old.dated)
    return msgspec.structs.replace(each, at=now, dated=each.at) if each.at is not None and each.at > now else each
