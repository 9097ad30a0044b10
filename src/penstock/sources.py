"""What the files in `webhook/` export: `SOURCE`. Pure data, checked when it is made.

A wrong declaration raises `DeclarationError`; `project.py` adds the file's name to it. Templates and paths are compiled
where they are used, in `webhook/choice.py`; which of them are wrong is said there, at `penstock plan` and at start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.errors import DeclarationError
from penstock.events import RESERVED
from penstock.model import NAME
from penstock.verification import DeliveryId, Verification, is_secret_header, is_secret_name

_RATE = re.compile(r"[1-9][0-9]{0,8}/(second|minute|hour|day)")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*\Z")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which dataset a delivery feeds, by what it says: a JMESPath `path` or a sandboxed Jinja `template`.

    Both see `body` (the parsed JSON) and `headers` (lower case, those that verify the request left out). What comes out
    is looked up in `among`; what is not there feeds `otherwise`, so that nothing accepted is without a dataset.
    """

    among: Mapping[str, str]
    otherwise: str
    path: str = ""
    template: str = ""

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.template):
            raise DeclarationError("a dataset is chosen by a path or by a template: give one of them")


def dataset_by_path(path: str, *, among: Mapping[str, str] | Sequence[str], otherwise: str) -> Chosen:
    """The dataset that `among` has for what this JMESPath finds, as `body.type` or `headers."x-github-event"`."""
    return Chosen(path=path, among=_named(among), otherwise=otherwise)


def dataset_by_template(template: str, *, among: Mapping[str, str] | Sequence[str], otherwise: str) -> Chosen:
    """The dataset that `among` has for what this Jinja template gives, as `{{ body.kind }}_{{ body.version }}`."""
    return Chosen(template=template, among=_named(among), otherwise=otherwise)


@dataclass(frozen=True, kw_only=True)
class Emit:
    """A further Prefect event for each delivery that is accepted for the first time.

    `name` and `resource` (the event's `prefect.resource.id`) are sandboxed Jinja templates over `body`, `headers`,
    `delivery`, `source` and `dataset`; `payload` has a JMESPath over the same for each of its fields. With `when`, a
    JMESPath, only where it finds something true. An event is a hint: one that cannot be made, because what it names is
    not there, is not sent, and the delivery is accepted all the same. So is a field that is null: `body.note || ''`
    gives it another value. What a sender says cannot begin a name or a resource like one of Prefect's or penstock's.
    """

    name: str
    resource: str
    payload: Mapping[str, str] = field(default_factory=dict)
    when: str = ""

    def __post_init__(self) -> None:
        if not self.name or not self.resource:
            raise DeclarationError("an event needs a name and a resource")
        if self.name.startswith(RESERVED):
            raise DeclarationError(f"event {self.name!r}: names that begin with prefect. or penstock. are not yours")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A declared webhook sender: how it is verified, and which dataset its deliveries feed.

    `headers` are the request headers kept with a delivery (lower case), `max_bytes` bounds a request body, before and
    after it is inflated. `content_types`, where given, are the only ones that are taken.
    `dedup` is where a delivery's id stands, which is otherwise the scheme's own to say: one that comes again under the
    same id is a duplicate.
    `dedup_days` is how long at least a delivery's id is remembered once its dataset no longer retains it: a retry that
    comes later is loaded again.
    `rate` and `rate_per_address` bound what is taken, as `100/second` or `5000/hour`; beyond it the answer is 429.
    `cloudevents`: requests are CloudEvents 1.0 (binary, structured or batch), each event a delivery, known by
    its `source` and `id`; `origins` are the ones that its handshake allows to send. In binary mode attributes are in
    headers, which no signature covers: it is taken of signed sources only with `unsigned_attributes`.
    `challenge` names the secret of a GET handshake by `hub.verify_token` (Meta's), where the sender asks for one.
    `emit` are further events. `keep_rejected_days` keeps what was refused for so long, for `penstock deliveries`.
    `retired`: answered with 410, which tells a sender to stop.
    """

    name: str
    dataset: str | Chosen
    verify: Verification
    dedup: DeliveryId | None = None
    headers: Sequence[str] = ()
    content_types: Sequence[str] = ()
    max_bytes: int = 5_000_000
    rate: str = ""
    rate_per_address: str = ""
    cloudevents: bool = False
    unsigned_attributes: bool = False
    origins: Sequence[str] = ("*",)
    challenge: str = ""
    emit: Sequence[Emit] = ()
    event_per_delivery: bool = False
    dedup_days: float = 30
    keep_rejected_days: float = 0
    retired: bool = False

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise DeclarationError(f"source name {self.name!r}: use a-z, 0-9 and _, beginning with a letter")
        if secret := [name.lower() for name in self.headers if is_secret_header(name, self.verify)]:
            raise DeclarationError(f"source {self.name}: the header {min(secret)} holds a secret and is not kept")
        if self.max_bytes < 1:
            raise DeclarationError(f"source {self.name}: max_bytes must be at least 1")
        if self.dedup_days < 1:
            raise DeclarationError(f"source {self.name}: dedup_days must be at least 1")
        if self.keep_rejected_days < 0:
            raise DeclarationError(f"source {self.name}: keep_rejected_days is 0 or more")
        for rate in filter(None, (self.rate, self.rate_per_address)):
            if not _RATE.fullmatch(rate):
                raise DeclarationError(f"source {self.name}: rate {rate!r} must look like 100/second or 5000/hour")
        for content_type in self.content_types:
            if not _MEDIA_TYPE.match(content_type):
                raise DeclarationError(f"source {self.name}: {content_type!r} is no content type like application/json")
        if self.cloudevents and self.dedup is not None:
            raise DeclarationError(f"source {self.name}: a CloudEvent is known by its source and id; leave dedup out")
        if self.challenge and not is_secret_name(self.challenge):
            raise DeclarationError(
                f"source {self.name}: challenge names a secret's variable like META_VERIFY_TOKEN, or prefect_secret(…)"
            )
        if not isinstance(self.dataset, str | Chosen):
            raise DeclarationError(
                f"source {self.name}: dataset is a name, dataset_by_path(…) or dataset_by_template(…)"
            )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every dataset that its deliveries may feed, sorted."""
        if isinstance(self.dataset, str):
            return (self.dataset,)
        return tuple(sorted({*self.dataset.among.values(), self.dataset.otherwise}))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of all its secrets."""
        return (*self.verify.secrets, *((self.challenge,) if self.challenge else ()))


def _named(among: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(among, str):
        raise DeclarationError(f"among is a list of datasets, or a mapping to them, not {among!r}")
    return dict(among) if isinstance(among, Mapping) else {name: name for name in among}
