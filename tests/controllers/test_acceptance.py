"""An upgrade: which policies are in force, which only warn, and what the administrator's word changes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from mlwarden import policy
from mlwarden.controllers import acceptance
from mlwarden.controllers.acceptance import KEPT, NEXT, WAITS, Plan, Record, plan
from mlwarden.controllers.status import status_of
from mlwarden.model.finding import Action, Severity
from mlwarden.model.policy import Expression, Policy, Requirement
from mlwarden.policy.crd import NAME

SHIPPED = policy.shipped()
BY_NAME = {each.name: each for each in SHIPPED}
DENIES = "privileged-containers"
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def changed(name: str, **changes: Any) -> tuple[Policy, ...]:
    """The shipped policies, one of them with another spec."""
    return tuple(
        msgspec.structs.replace(each, spec=msgspec.structs.replace(each.spec, **changes)) if each.name == name else each for each in SHIPPED
    )


STRICTER = changed(DENIES, requirement=Requirement(expression=Expression(expression="false")))


def upgraded(shipped: tuple[Policy, ...], record: Record, **options: Any) -> Plan:
    return plan(shipped, record, **{"version": "2.0.0", "accept": "", **options})


def fresh(shipped: tuple[Policy, ...] = SHIPPED) -> Record:
    return plan(shipped, None, version="1.0.0", accept="").record


def objects(planned: Plan) -> dict[str, dict[str, Any]]:
    return {obj["metadata"]["name"]: obj for obj in planned.policies}


def annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    return dict(obj["metadata"].get("annotations") or {})


def test_a_fresh_install_enforces_everything_and_remembers_it() -> None:
    planned = plan(SHIPPED, None, version="1.0.0", accept="")
    assert objects(planned).keys() == BY_NAME.keys()
    assert not planned.waiting
    assert not any(map(annotations, planned.policies))
    assert planned.record.version == "1.0.0"
    assert (read := acceptance.decode(acceptance.encode(planned.record)))
    assert acceptance.encode(read) == acceptance.encode(planned.record)


def test_an_upgrade_that_changes_no_policy_changes_nothing() -> None:
    planned = upgraded(SHIPPED, fresh())
    assert objects(planned) == objects(plan(SHIPPED, None, version="1.0.0", accept=""))
    assert planned.record.version == "2.0.0"


def test_a_policy_with_other_texts_is_no_other_policy() -> None:
    planned = upgraded(changed(DENIES, message="other words", why="other words", severity=Severity.LOW), fresh())
    assert not planned.waiting
    assert objects(planned)[DENIES]["spec"]["message"] == "other words"


def test_a_stricter_policy_warns_beside_the_one_that_was_enforced() -> None:
    found = objects(planned := upgraded(STRICTER, fresh()))
    assert planned.waiting == (DENIES + NEXT,)
    assert found[DENIES]["spec"] == acceptance.as_object(BY_NAME[DENIES])["spec"]
    assert annotations(found[DENIES]) == {KEPT: "2.0.0"}
    following = found[DENIES + NEXT]
    assert annotations(following) == {WAITS: "2.0.0"}
    assert following["spec"]["requirement"] == {"expression": {"expression": "false"}}
    assert Action.DENY.value not in following["spec"]["profiles"].values()
    assert following["spec"]["profiles"].keys() == found[DENIES]["spec"]["profiles"].keys()
    assert {name: obj for name, obj in found.items() if name not in {DENIES, DENIES + NEXT}}.keys() == BY_NAME.keys() - {DENIES}


def test_a_new_policy_warns_under_its_own_name_and_an_old_one_stays() -> None:
    less, more = SHIPPED[1:], SHIPPED[:-1]
    found = objects(planned := upgraded(more, fresh(less)))
    new, gone = SHIPPED[0].name, SHIPPED[-1].name
    assert planned.waiting == (new,)
    assert annotations(found[new]) == {WAITS: "2.0.0"}
    assert Action.DENY.value not in found[new]["spec"]["profiles"].values()
    assert annotations(found[gone]) == {KEPT: "2.0.0"}


def test_what_waits_waits_through_further_upgrades() -> None:
    record = upgraded(STRICTER, fresh()).record
    assert record.version == "1.0.0"
    again = upgraded(STRICTER, record, version="3.0.0", accept="2.0.0")
    assert again.waiting == (DENIES + NEXT,)
    assert objects(again)[DENIES]["spec"] == acceptance.as_object(BY_NAME[DENIES])["spec"]


def test_accepted_the_new_ones_are_in_force_and_what_they_replace_is_not() -> None:
    accepted = upgraded(STRICTER[1:], upgraded(STRICTER[1:], fresh()).record, accept="2.0.0")
    assert objects(accepted) == objects(plan(STRICTER[1:], None, version="2.0.0", accept=""))
    assert accepted.record.version == "2.0.0"
    later = upgraded(STRICTER[1:], accepted.record, version="2.0.1", accept="2.0.0")
    assert not later.waiting


def test_going_back_to_what_was_in_force_once_needs_no_word() -> None:
    accepted = upgraded(STRICTER, fresh(), accept="2.0.0").record
    back = upgraded(SHIPPED, accepted, version="1.0.0")
    assert objects(back) == objects(plan(SHIPPED, None, version="1.0.0", accept=""))


def test_what_somebody_edited_is_theirs_and_nothing_waits_for_it() -> None:
    planned = upgraded(STRICTER, fresh(), edited=[DENIES])
    assert not planned.waiting
    assert annotations(objects(planned)[DENIES]) == {KEPT: "2.0.0"}


def test_what_the_administrators_own_values_say_is_in_force_at_once() -> None:
    planned = upgraded(STRICTER, fresh(), decided=[DENIES])
    assert not planned.waiting
    assert objects(planned)[DENIES]["spec"]["requirement"] == {"expression": {"expression": "false"}}


def test_without_a_record_what_is_stored_is_what_was_enforced() -> None:
    stored = [*map(acceptance.as_object, SHIPPED)]
    planned = upgraded(STRICTER, acceptance.enforced(stored[1:]))
    assert set(planned.waiting) == {DENIES + NEXT, SHIPPED[0].name}
    assert objects(planned)[DENIES]["spec"] == acceptance.as_object(BY_NAME[DENIES])["spec"]


def test_a_record_that_is_lost_while_something_waits_accepts_nothing() -> None:
    waiting = upgraded((*STRICTER[:-1], msgspec.structs.replace(STRICTER[-1], name="new-one")), fresh())
    lost = acceptance.enforced(waiting.policies)
    again = upgraded((*STRICTER[:-1], msgspec.structs.replace(STRICTER[-1], name="new-one")), lost)
    assert objects(again) == objects(waiting)


def test_a_record_of_which_one_policy_cannot_be_read_keeps_the_others() -> None:
    record = fresh()
    broken = acceptance.Kept(pack="baseline", spec={"of": "another world"})
    planned = upgraded(SHIPPED, msgspec.structs.replace(record, policies={**record.policies, DENIES: broken}, packs=()))
    assert planned.waiting == (DENIES,)
    assert acceptance.decode({"record.json": b"{"}) is None
    assert acceptance.decode({}) is None


def test_every_shipped_policy_has_room_for_the_name_of_the_one_that_waits_beside_it() -> None:
    assert all(policy.parse(acceptance.as_object(msgspec.structs.replace(each, name=each.name + NEXT))) for each in SHIPPED), NAME


def test_what_stands_in_for_a_policy_lets_everything_pass_and_is_never_taken_for_accepted() -> None:
    for obj in objects(upgraded(STRICTER, fresh())).values():
        stands = acceptance.stand_in(obj, "2.0.0")
        parsed = policy.parse(stands)
        assert policy.compile_policy(parsed)
        assert (parsed.name, parsed.spec.requirement.expression) == (obj["metadata"]["name"], Expression(expression="true"))
        assert set(parsed.spec.profiles.values()) == {Action.WARN}
        assert not acceptance.enforced([stands]).policies


def test_the_status_says_which_waits_and_which_stays_as_it_was() -> None:
    found = objects(upgraded(STRICTER, fresh()))

    def accepted(name: str) -> tuple[str, str]:
        conditions = {each["type"]: each for each in status_of(found[name], NOW)["conditions"]}
        return conditions["Accepted"]["status"], conditions["Accepted"]["reason"]

    assert accepted(DENIES + NEXT) == ("False", "Waits")
    assert accepted(DENIES) == ("True", "AsBefore")
    assert accepted("host-ports") == ("True", "Current")
