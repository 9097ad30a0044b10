"""What a source may declare of its verification and its ids, and what it may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from penstock.errors import DeclarationError
from penstock.sources import Source
from penstock.verification import (
    DeliveryId,
    Hmac,
    Verification,
    basic,
    bearer,
    github,
    hmac_signed,
    id_field,
    id_header,
    prefect_secret,
    slack,
    standard_webhooks,
    stripe,
    svix,
    unverified,
)


def template(signed: str, **how: str) -> Verification:
    return hmac_signed("S", header="X-Sig", signed=signed, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (svix, "needs the name"),
        (stripe, "needs the name"),
        (slack, "needs the name"),
        (bearer, "needs the name"),
        (lambda: stripe("whsec_abc"), "never by its value"),
        (lambda: stripe("prefect:A b"), "never by its value"),
        (lambda: stripe("prefect:a\n"), "never by its value"),
        (lambda: prefect_secret("A b"), "a block's name"),
        (lambda: prefect_secret(""), "a block's name"),
        (lambda: stripe("A", "A"), "twice"),
        (lambda: slack("S", tolerance=timedelta()), "tolerance"),
        (lambda: slack("S", tolerance=timedelta(days=2)), "tolerance"),
        (lambda: standard_webhooks("S", tolerance=timedelta(seconds=-1)), "tolerance"),
        (lambda: basic("S", user=""), "without a colon"),
        (lambda: basic("S", user="a:b"), "without a colon"),
        (lambda: bearer("S", header="X Token"), "no header's name"),
        (lambda: bearer("S", header="X-Token\n"), "no header's name"),
        (lambda: unverified(because="\t"), "must say why"),
        (lambda: Verification(scheme="hmac", secrets=("S",)), "use hmac_signed"),
        (lambda: Verification(scheme="github", secrets=("S",), hmac=Hmac(header="X")), "use hmac_signed"),
        (lambda: hmac_signed("S", header=""), "a header for the signature"),
        (lambda: hmac_signed("S", header="X", id_header="x"), "a header of its own"),
        (lambda: hmac_signed("S", header="X", algorithm="sha1"), "'sha1' is not offered"),  # type: ignore[arg-type]
        (lambda: hmac_signed("S", header="X", algorithm="md5"), "'md5' is not offered"),  # type: ignore[arg-type]
        (lambda: hmac_signed("S", header="X", encoding="utf8"), "'utf8' is not offered"),  # type: ignore[arg-type]
        (lambda: hmac_signed("S", header="X", prefix="a b"), "prefix"),
        (lambda: template(""), "signs {body} once"),
        (lambda: template("{timestamp}", timestamp_header="T"), "signs {body} once"),
        (lambda: template("{body}.{body}"), "signs {body} once"),
        (lambda: template("{url}{body}"), "not {url}"),
        (lambda: template("{body!r}"), "not {body}"),
        (lambda: template("{body:>9}"), "not {body}"),
        (lambda: template("{body.x}"), "not {body.x}"),
        (lambda: template("{}"), "not {}"),
        (lambda: template("{body"), "is no template"),
        (lambda: template("{timestamp}.{body}"), "go together"),
        (lambda: template("{body}", timestamp_header="T"), "go together"),
        (lambda: template("{id}.{body}"), "needs an id_header"),
        (lambda: template("é{body}"), "is ASCII"),
        (lambda: template("{timestamp}{body}", timestamp_header="T"), "punctuation"),
        (lambda: template("{timestamp}a{body}", timestamp_header="T"), "punctuation"),
        (lambda: template("{timestamp}1{body}", timestamp_header="T"), "punctuation"),
        (lambda: template("{body}{id}", id_header="I"), "punctuation"),
        (lambda: DeliveryId(header="X-Id", field="id"), "not in both"),
        (lambda: id_header("X Id"), "no header's name"),
        (lambda: id_field("a..b"), "full stop"),
        (lambda: Source(name="a", dataset="a", verify=github("S"), headers=("Authorization",)), "holds a secret"),
        (lambda: Source(name="a", dataset="a", verify=github("S"), headers=("cookie",)), "holds a secret"),
        (
            lambda: Source(name="a", dataset="a", verify=bearer("S", header="X-Token"), headers=("x-token",)),
            "holds a secret",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_declared(make: Callable[[], object], says: str) -> None:
    """Each rule is checked at once, and the message says what would do."""
    with pytest.raises(DeclarationError) as found:
        make()
    assert says in str(found.value)
    assert "whsec_" not in str(found.value)


@pytest.mark.parametrize(
    "signed",
    ["{body}", "v0:{timestamp}:{body}", "{timestamp}\n{body}", "{body}.{timestamp}", "{id}:{timestamp}:{body}:v1"],
)
def test_every_order_of_the_parts_can_be_declared(signed: str) -> None:
    """Parts may come in any order, with punctuation between them and any text around."""
    how = {
        **({"timestamp_header": "T"} if "{timestamp}" in signed else {}),
        **({"id_header": "I"} if "{id}" in signed else {}),
    }
    found = template(signed, **how).hmac
    assert found is not None
    assert "".join(text or "{" + kind + "}" for kind, text in found.parts()) == signed


def test_secrets_are_names_of_variables_or_of_blocks() -> None:
    """A block is named beside variables, and its name is all that a declaration shows."""
    found = stripe("STRIPE_SECRET", prefect_secret("stripe-next"))
    assert found.secrets == ("STRIPE_SECRET", "prefect:stripe-next")
