"""What a row of `leases` says about now, as SQL predicates.

A moment further ahead than it can ever have been set is the trace of a clock that was put back. It counts as past:
waiting for it would stop the dataset for as long as the clock jumped, and a lease taken over too early does no harm,
because the warehouse refuses the older token.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_

from penstock.ledger.decide import LONGEST_BACKOFF
from penstock.ledger.tables import leases

# The most that `PENSTOCK_LEASE_SECONDS` allows.
LONGEST_LEASE = timedelta(minutes=5)

# What a minute allows is claimed at once at the most.
LONGEST_BACKLOG_PAUSE = timedelta(minutes=1)


def live(now: datetime) -> ColumnElement[bool]:
    """Somebody holds the lease and has renewed it in time."""
    return and_(leases.c.holder.is_not(None), leases.c.expires_at > now, leases.c.expires_at <= now + LONGEST_LEASE)


def on_hold(now: datetime) -> ColumnElement[bool]:
    """A transient error keeps the dataset waiting."""
    return and_(leases.c.hold_until > now, leases.c.hold_until <= now + LONGEST_BACKOFF)


def backlog_waits(now: datetime) -> ColumnElement[bool]:
    """As many old objects were claimed as may be until then."""
    return and_(leases.c.backlog_due > now, leases.c.backlog_due <= now + LONGEST_BACKLOG_PAUSE)


def busy(now: datetime) -> ColumnElement[bool]:
    """No run is to be woken: one is at work, or it is too early."""
    return or_(live(now), on_hold(now))
