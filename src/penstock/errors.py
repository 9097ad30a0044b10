"""Every error penstock raises: one root, `Transient` and `Terminal` below it.

The class docstring is the default message. A message says what went wrong and what to do next, and never holds a
secret or a row's contents.
"""

from __future__ import annotations


class PenstockError(Exception):
    """Something went wrong in penstock."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__class__.__doc__ or "").strip())


class Transient(PenstockError):
    """Trying again later may help; nothing about the data is wrong."""


class Terminal(PenstockError):
    """Trying again changes nothing until somebody changes the data or the declaration."""


class StoreUnavailable(Transient):
    """The object store does not answer."""


class FileChanged(Transient):
    """The file was written while it was read."""


class LedgerUnavailable(Transient):
    """The ledger does not take the transaction."""


class WarehouseLocked(Transient):
    """Another process holds the warehouse."""


class WarehouseUnavailable(Transient):
    """The warehouse does not answer."""


class PrefectUnavailable(Transient):
    """Prefect's server does not answer."""


class PrefectFailed(PrefectUnavailable):
    """Prefect's server answers, but with an error."""


class PrefectRefused(PrefectUnavailable):
    """Prefect's server does not take this request as it is."""


class ServerChanged(Transient):
    """Something on Prefect's server was changed since the plan was made."""


class Stalled(PenstockError):
    """The run stood still for too long and was given up."""


class NotRunning(Transient):
    """Nothing is running for this project: start it with `penstock up`."""


class DeclarationError(Terminal):
    """A file of the project declares something that cannot work."""


class SettingsError(Terminal):
    """A setting is missing or wrong."""


class NotMigrated(Terminal):
    """The ledger's revision is not the one this penstock works with."""


class LedgerInUse(Terminal):
    """Somebody works with the ledger, which has to be migrated: stop that first."""


class ObjectMissing(Terminal):
    """The object is no longer in the store."""


class ObjectChanged(Terminal):
    """The object in the store is not the generation that was asked for."""


class Unreadable(Terminal):
    """The object's bytes cannot be read as its dataset says."""


class DoesNotFit(Terminal):
    """The warehouse cannot hold these rows."""


class TooManyBadRows(Terminal):
    """The share of good rows is under the dataset's threshold."""


class LeaseLost(Terminal):
    """Another run holds the dataset by now; this one must not write."""

    def __init__(self, message: str | None = None, *, greater: int | None = None) -> None:
        super().__init__(message)
        # The token that the warehouse has instead, where that is what told.
        self.greater = greater


class CannotListen(Terminal):
    """This object store cannot notify."""


class Refused(Terminal):
    """The file or key cannot be taken."""


class Unverified(Terminal):
    """The request is not signed as its source says."""

    def __init__(self, why: str = "") -> None:
        super().__init__()
        # For the source's own people; whoever sent the request is not told.
        self.why = why


class QueryRefused(Terminal):
    """The warehouse does not answer this query."""


class TableMissing(QueryRefused):
    """A table that the query names is not there: a dataset's is made with its first load."""


class QueryTooLong(Terminal):
    """The query was stopped because it took too long."""
