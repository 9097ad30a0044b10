"""How a source's requests are verified, declared: which scheme, which secrets, and where a delivery's id stands.

Pure data, checked when it is made. The schemes themselves are in `webhook/schemes/`. A secret is named, never given:
by an environment variable's name, or by `prefect_secret("name")`. Several are all in force, for rotation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from string import Formatter
from typing import Literal

from penstock.errors import DeclarationError

ENV_NAME = re.compile(r"^[A-Z][A-Z0-9_]*\Z")
PREFECT = "prefect:"

Scheme = Literal["standard", "svix", "stripe", "github", "slack", "hmac", "bearer", "basic", "none"]
Algorithm = Literal["sha256", "sha384", "sha512"]
Encoding = Literal["hex", "base64"]

_BLOCK_NAME = re.compile(r"[a-z0-9-]{1,255}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_PRINTABLE = re.compile(r"[\x21-\x7e]*")
_LONGEST_TOLERANCE = timedelta(days=1)
_TOLERANCE = timedelta(minutes=5)
# What is called so holds what verifies or logs in, whoever sends it.
_SECRETS = (
    "signature",
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "api-key",
    "apikey",
    "credential",
)
_FIELDS = ("timestamp", "id", "body")


@dataclass(frozen=True, kw_only=True)
class DeliveryId:
    """Where a delivery's id stands: in a request header, or in a field of the JSON body (a dotted path).

    Where there is neither, or nothing usable, the SHA-256 of the body in hex stands for it: equal bodies are then one
    delivery. With `required` a request without the header is refused instead.
    """

    header: str = ""
    field: str = ""
    required: bool = False

    def __post_init__(self) -> None:
        if self.header and self.field:
            raise DeclarationError("a delivery's id stands in a header or in the body, not in both")
        if self.header:
            _check_header(self.header)
        if self.field and not all(self.field.split(".")):
            raise DeclarationError(
                f"the delivery's id is in {self.field!r}: give names with one full stop between them"
            )


def id_header(name: str) -> DeliveryId:
    """The delivery's id is the value of this request header."""
    return DeliveryId(header=name)


def id_field(path: str) -> DeliveryId:
    """The delivery's id is this field of the JSON body, as `event.id`."""
    return DeliveryId(field=path)


def id_of_body() -> DeliveryId:
    """The delivery's id is the SHA-256 of its body: equal bodies are one delivery, whatever the sender says."""
    return DeliveryId()


@dataclass(frozen=True, kw_only=True)
class Hmac:
    """An HMAC over what `signed` says, in the request header `header` behind `prefix`.

    `signed` holds `{body}` once and may hold `{timestamp}` and `{id}`, which are the values of `timestamp_header` and
    `id_header`, with punctuation between any two: without it one's end could pass for the other's beginning.
    """

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    signed: str = "{body}"
    timestamp_header: str = ""
    id_header: str = ""

    def __post_init__(self) -> None:
        for name in filter(None, (self.header, self.timestamp_header, self.id_header)):
            _check_header(name)
        names = [name.lower() for name in (self.header, self.timestamp_header, self.id_header) if name]
        if not self.header or len(set(names)) < len(names):
            raise DeclarationError("an HMAC needs a header for the signature, and each part a header of its own")
        if self.algorithm not in ("sha256", "sha384", "sha512"):
            raise DeclarationError(f"an HMAC with {self.algorithm!r} is not offered: use sha256, sha384 or sha512")
        if self.encoding not in ("hex", "base64"):
            raise DeclarationError(f"an HMAC in {self.encoding!r} is not offered: use hex or base64")
        if not _PRINTABLE.fullmatch(self.prefix):
            raise DeclarationError("an HMAC's prefix is visible ASCII without spaces")
        self._check_template()

    def parts(self) -> list[tuple[str, str]]:
        """What is signed, in order: ("text", literal) and ("timestamp" | "id" | "body", "")."""
        found: list[tuple[str, str]] = []
        for text, name, spec, conversion in Formatter().parse(self.signed):
            if text:
                found.append(("text", text))
            if name is not None:
                if name not in _FIELDS or spec or conversion:
                    raise DeclarationError(f"an HMAC signs {{body}}, {{timestamp}} and {{id}}, not {{{name}}}")
                found.append((name, ""))
        return found

    def _check_template(self) -> None:
        try:
            parts = self.parts()
        except ValueError as error:
            raise DeclarationError(f"what an HMAC signs is no template: {error}") from None
        names = [kind for kind, _ in parts if kind != "text"]
        if names.count("body") != 1 or len(set(names)) < len(names):
            raise DeclarationError("an HMAC signs {body} once, and {timestamp} and {id} once at most")
        if ("timestamp" in names) != bool(self.timestamp_header):
            raise DeclarationError("an HMAC's {timestamp} and timestamp_header go together: a time unsigned is none")
        if "id" in names and not self.id_header:
            raise DeclarationError("an HMAC that signs {id} needs an id_header")
        if not self.signed.isascii():
            raise DeclarationError("what an HMAC signs besides the body is ASCII")
        # What stands between two parts may not occur in either; ids and times are held to that when they come.
        between = [part for index, part in enumerate(parts) if 0 < index < len(parts) - 1]
        touching = any("text" not in (one, other) for (one, _), (other, _) in pairwise(parts))
        if touching or any(kind == "text" and re.search(r"[A-Za-z0-9]", text) for kind, text in between):
            raise DeclarationError(
                "an HMAC's parts need punctuation, and nothing else, between them: {timestamp}.{body}"
            )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a source's requests are verified. `secrets` name them, any of them may match, the first that can signs.

    `tolerance` is how far the sender's time may be off, both ways, where the scheme has one. `hmac` says what `hmac`
    signs, `header` where `bearer` has its token, `user` whose password `basic` asks for. `because` is why nothing is
    verified, where that is so.
    """

    scheme: Scheme
    secrets: tuple[str, ...] = ()
    tolerance: timedelta = _TOLERANCE
    because: str = ""
    hmac: Hmac | None = None
    header: str = ""
    user: str = ""

    @property
    def signs(self) -> bool:
        """Whether what is verified is a signature over the body, and not a token or nothing."""
        return self.scheme not in ("bearer", "basic", "none")

    def __post_init__(self) -> None:
        if self.scheme != "none" and not self.secrets:
            raise DeclarationError(f"verification {self.scheme!r} needs the name of an environment variable")
        for name in self.secrets:
            if not is_secret_name(name):
                raise DeclarationError(
                    "a secret is given by the NAME of an environment variable, or by prefect_secret(name), "
                    "never by its value"
                )
        if len(set(self.secrets)) < len(self.secrets):
            raise DeclarationError("a verification names one secret twice")
        if not timedelta() < self.tolerance <= _LONGEST_TOLERANCE:
            raise DeclarationError("a verification's tolerance is more than nothing and a day at most")
        if (self.scheme == "hmac") != (self.hmac is not None):
            raise DeclarationError("the scheme 'hmac', and no other, says what is signed: use hmac_signed(...)")
        if self.header:
            _check_header(self.header)
        if self.scheme == "basic" and not re.fullmatch(r"[\x21-\x39\x3b-\x7e]{1,255}", self.user):
            raise DeclarationError("basic needs a user: visible ASCII without a colon")


def standard_webhooks(*secrets: str, tolerance: timedelta = _TOLERANCE) -> Verification:
    """Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.

    A secret `whsec_…` verifies v1 (HMAC-SHA256), a public key `whpk_…` v1a (ed25519).
    """
    return Verification(scheme="standard", secrets=secrets, tolerance=tolerance)


def svix(*secrets: str, tolerance: timedelta = _TOLERANCE) -> Verification:
    """Svix: as Standard Webhooks, in the headers `svix-id`, `svix-timestamp`, `svix-signature`."""
    return Verification(scheme="svix", secrets=secrets, tolerance=tolerance)


def stripe(*secrets: str, tolerance: timedelta = _TOLERANCE) -> Verification:
    """Stripe: `Stripe-Signature` with `t` and `v1`; the event's `id` is the delivery's."""
    return Verification(scheme="stripe", secrets=secrets, tolerance=tolerance)


def github(*secrets: str) -> Verification:
    """GitHub: `X-Hub-Signature-256` over the body, `X-GitHub-Delivery` as the delivery's id."""
    return Verification(scheme="github", secrets=secrets)


def slack(*secrets: str, tolerance: timedelta = _TOLERANCE) -> Verification:
    """Slack: `X-Slack-Signature` over time and body; the body's `event_id` is the delivery's, where it has one."""
    return Verification(scheme="slack", secrets=secrets, tolerance=tolerance)


def hmac_signed(
    *secrets: str,
    header: str,
    algorithm: Algorithm = "sha256",
    encoding: Encoding = "hex",
    prefix: str = "",
    signed: str = "{body}",
    timestamp_header: str = "",
    id_header: str = "",
    tolerance: timedelta = _TOLERANCE,
) -> Verification:
    """Any other sender that signs with an HMAC; `Hmac` says what the arguments are.

    A timestamp is whole seconds since 1970. An `id_header` that is not signed can be changed by whoever captured a
    request, who can so send it again.
    """
    how = Hmac(
        header=header,
        algorithm=algorithm,
        encoding=encoding,
        prefix=prefix,
        signed=signed,
        timestamp_header=timestamp_header,
        id_header=id_header,
    )
    return Verification(scheme="hmac", secrets=secrets, tolerance=tolerance, hmac=how)


def bearer(*secrets: str, header: str = "authorization") -> Verification:
    """A token: `Authorization: Bearer TOKEN`, or alone in another `header` (GitLab: `X-Gitlab-Token`).

    Who captured a request can send any other with it: a signature is better where the sender can make one.
    """
    return Verification(scheme="bearer", secrets=secrets, header=header)


def basic(*secrets: str, user: str) -> Verification:
    """HTTP Basic: this user, whose password is the secret. Who captured a request can send any other with it."""
    return Verification(scheme="basic", secrets=secrets, user=user)


def unverified(*, because: str) -> Verification:
    """No verification at all; `because` says why that is acceptable, and the log repeats it."""
    if not because.strip():
        raise DeclarationError("a source without verification must say why")
    return Verification(scheme="none", because=because.strip())


def prefect_secret(name: str) -> str:
    """A secret in the Secret block of this name on the project's Prefect server, in place of a variable's name."""
    if not _BLOCK_NAME.fullmatch(name):
        raise DeclarationError(f"prefect_secret({name!r}): a block's name has a-z, 0-9 and -")
    return PREFECT + name


def is_secret_name(name: str) -> bool:
    """Whether this names a secret, by an environment variable or a Secret block."""
    if name.startswith(PREFECT):
        return bool(_BLOCK_NAME.fullmatch(name.removeprefix(PREFECT)))
    return bool(ENV_NAME.match(name))


def _check_header(name: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise DeclarationError(f"{name!r} is no header's name: use letters, digits and -")


def is_secret_header(name: str, verification: Verification) -> bool:
    """Whether a header, by its name, holds what verifies or logs in: its value is never kept nor sent on."""
    found = name.lower()
    of_scheme = {verification.header.lower(), verification.hmac.header.lower() if verification.hmac else ""}
    return found in of_scheme or any(word in found for word in _SECRETS)
