"""What may go of a key, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from minio.deleteobjects import DeleteError

from penstock.declarations import Dataset
from penstock.errors import DeclarationError
from penstock.flows.retention import Plan, done_deliveries, plan_versions, plan_without_versions
from penstock.ledger.archive import Held
from penstock.model import State, Version
from penstock.objects import ObjectStore
from penstock.sources import Source
from penstock.verification import unverified

BEFORE = datetime(2026, 3, 1, tzinfo=UTC)
OLD, YOUNG = BEFORE - timedelta(days=1), BEFORE + timedelta(days=1)


def held(number: int, state: State = State.LOADED, at: datetime = OLD, *, entry: int = 0) -> Held:
    return Held(
        id=number,
        generation=number,
        entry=entry,
        etag=f"e{number}",
        version_id=f"v{number}",
        state=state,
        arrived_at=at,
        changed_at=at,
    )


def version(name: str, at: datetime = OLD, *, latest: bool = False, marker: bool = False) -> Version:
    return Version(id=name, etag=name.replace("v", "e"), modified=at, latest=latest, marker=marker)


def plan(rows: list[Held], versions: list[Version], *, unknown_too: bool = True) -> Plan:
    return plan_versions(rows, versions, before=BEFORE, unknown_too=unknown_too)


def test_the_newest_goes_last() -> None:
    """All of a key goes, and what would uncover something older goes after that."""
    rows = [held(1, State.SUPERSEDED), held(2)]
    found = plan(rows, [version("v1"), version("lost"), version("mark", marker=True), version("v2", latest=True)])
    assert found == Plan(first=("v1", "lost", "mark"), last="v2", archive=tuple(rows))


@pytest.mark.parametrize("state", sorted(set(State) - {State.LOADED, State.EMPTY}))
def test_a_newest_that_was_not_loaded_stays(state: State) -> None:
    """Whatever it waits for, its bytes are not retention's."""
    assert plan([held(1, State.SUPERSEDED), held(2, state)], [version("v2", latest=True)]).last is None


@pytest.mark.parametrize("state", [State.PENDING, State.CLAIMED, State.QUARANTINED, State.IGNORED])
def test_nothing_newer_goes_over_a_version_that_stays(state: State) -> None:
    """Else that one would be the latest, and be found as new."""
    assert plan([held(1, state), held(2)], [version("v1"), version("v2", latest=True)]) == Plan()


def test_a_version_that_the_ledger_does_not_know_is_never_uncovered() -> None:
    """A latest version that is not the newest generation stays, and so does an unknown older one where it counts."""
    assert plan([held(1)], [version("v1"), version("v2", latest=True)]) == Plan(first=("v1",))
    assert plan([held(2)], [version("v1"), version("v2", latest=True)], unknown_too=False) == Plan()
    assert plan([held(2)], [version("v1", YOUNG), version("v2", latest=True)]) == Plan()


def test_a_young_newest_keeps_itself() -> None:
    """What it replaced long ago goes."""
    rows = [held(1, State.SUPERSEDED), held(2, at=YOUNG)]
    found = plan(rows, [version("v1"), version("v2", latest=True)])
    assert found == Plan(first=("v1",), archive=(rows[0],))


def test_a_delete_marker_goes_when_nothing_is_left_under_it() -> None:
    """Before that it stays, and hides what is there."""
    marker = version("m", latest=True, marker=True)
    assert plan([held(1)], [version("v1"), marker]) == Plan(first=("v1",), last="m", archive=(held(1),))
    quarantined = held(1, State.QUARANTINED)
    assert plan([quarantined], [version("v1"), marker]) == Plan()


def test_what_is_gone_is_archived() -> None:
    """With no version left there is nothing to remove; not while something of the key is not done."""
    assert plan([held(1)], []) == Plan(archive=(held(1),))
    assert plan([held(1), held(2, State.PENDING)], []) == Plan()


def test_an_object_from_before_the_bucket_had_versions_is_known_by_its_etag() -> None:
    """Its version is called null."""
    row = Held(**{**vars(held(1)), "version_id": None})
    null = Version(id="null", etag="e1", modified=OLD, latest=True)
    assert plan([row], [null]) == Plan(last="null", archive=(row,))
    assert plan([row], [Version(id="null", etag="other", modified=OLD, latest=True)]) == Plan()


def test_the_same_bytes_put_again_are_the_generation_that_was_loaded() -> None:
    """The ledger made no new one of them, so the latest version has another id than its row."""
    again = Version(id="v9", etag="e1", modified=OLD, latest=True)
    assert plan([held(1)], [version("v1"), again]) == Plan(first=("v1",), last="v9", archive=(held(1),))


def test_the_same_bytes_put_again_stay_until_they_are_old_themselves() -> None:
    """And with them the version that their row names; copies between the two go one by one as they grow old."""
    old, young = (Version(id=id, etag="e1", modified=at, latest=False) for id, at in (("v8", OLD), ("v9", YOUNG)))
    latest = replace(young, id="v10", latest=True)
    assert plan([held(1)], [version("v1"), latest]) == Plan()
    assert plan([held(1)], [version("v1"), old, young, latest]) == Plan(first=("v8",))
    marker = version("m", latest=True, marker=True)
    assert plan([held(1)], [version("v1"), young, marker]) == Plan(first=("v1",))


@pytest.mark.parametrize("state", [State.MISSING, State.SUPERSEDED])
def test_without_versions_only_what_the_ledger_knows_to_be_gone_is_archived(state: State) -> None:
    """The rest stays, and is counted when it is old enough."""
    rows = [held(1), held(2, state)]
    assert plan_without_versions(rows, before=BEFORE) == Plan(archive=tuple(rows))
    assert plan_without_versions([held(1), held(2, state, YOUNG)], before=BEFORE) == Plan()
    rows = [held(1, State.SUPERSEDED), held(2)]
    assert plan_without_versions(rows, before=BEFORE) == Plan(archive=(rows[0],), kept=True)
    assert plan_without_versions([held(1, at=YOUNG)], before=BEFORE) == Plan()


@pytest.mark.parametrize("name", [None, "b", "a"])
def test_what_the_store_could_not_remove_is_never_taken_for_removed(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error without a version is its key's; one that names none of the keys may mean each of them."""
    store = ObjectStore("localhost:1", "key", "secret")
    error = DeleteError(code="InternalError", message=None, name=name, version_id=None)
    monkeypatch.setattr(store._client, "remove_objects", lambda *args: iter([error]))
    wanted: list[tuple[str, str | None]] = [("a", "v1"), ("a", "v2")]
    assert store.remove_versions("landing", wanted) == ({("a", None)} if name == "a" else set(wanted))


def test_an_envelope_is_done_when_all_its_deliveries_are() -> None:
    """One that was dropped does not keep the others; one in quarantine, or a young one, does."""
    assert done_deliveries([held(1, entry=1), held(1, State.IGNORED, entry=2)], before=BEFORE)
    assert not done_deliveries([held(1, entry=1), held(1, State.QUARANTINED, entry=2)], before=BEFORE)
    assert not done_deliveries([held(1, entry=1), held(1, at=YOUNG, entry=2)], before=BEFORE)


@pytest.mark.parametrize("days", [0, -1])
def test_days_that_make_no_sense_are_refused(days: float) -> None:
    """Neither what is loaded nor what was delivered is given up at once."""
    with pytest.raises(DeclarationError, match="retain_days"):
        Dataset(name="sales", retain_days=days)
    with pytest.raises(DeclarationError, match="dedup_days"):
        Source(name="shop", dataset="sales", verify=unverified(because="a test"), dedup_days=days)
