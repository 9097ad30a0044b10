"""Where secrets come from, and that none is ever shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from penstock.cli.secrets import made_secrets
from penstock.errors import PrefectUnavailable
from penstock.settings import load_settings
from penstock.sources import Source
from penstock.verification import bearer, github, prefect_secret, standard_webhooks, stripe, svix, unverified
from penstock.webhook.known_secrets import Known
from penstock.webhook.schemes.standard import Standard
from penstock.webhook.secrets import Secrets, open_secrets, remedy
from penstock.webhook.verify import usable
from tests.waiting import wait_for

BLOCK = prefect_secret("shop-key")
VALUE = "the value of the secret"


class Prefect:
    """Secret blocks that can be changed, or fall silent."""

    def __init__(self) -> None:
        self.blocks = {"shop-key": VALUE}
        self.away = False
        self.asked = 0

    def read(self, block: str) -> str:
        """A block's value."""
        self.asked += 1
        if self.away:
            raise PrefectUnavailable("away")
        return self.blocks.get(block, "")

    def secrets(self) -> Secrets:
        """The secrets of a source with a variable and a block."""
        return Secrets(["SHOP_SECRET", BLOCK], resolve={"SHOP_SECRET": "env"}.get, read=self.read)  # type: ignore[arg-type]


@contextmanager
def kept_fresh(secrets: Secrets) -> Iterator[None]:
    secrets.keep_fresh(every=0.01, again=0.01)
    try:
        yield
    finally:
        secrets.close()


def test_a_block_is_read_at_start_and_not_during_a_request() -> None:
    """What a block holds is known once it was read; asking for a value asks nobody."""
    prefect = Prefect()
    secrets = prefect.secrets()
    assert secrets.value(BLOCK) == ""
    assert secrets.refresh()
    asked = prefect.asked
    assert (secrets.value(BLOCK), secrets.value("SHOP_SECRET")) == (VALUE, "env")
    assert prefect.asked == asked == 1


def test_what_a_block_held_stays_in_force_while_prefect_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """A Prefect that is away takes no source with it; that is logged once, and never with a value."""
    prefect = Prefect()
    secrets = prefect.secrets()
    secrets.refresh()
    prefect.away = True
    with caplog.at_level(logging.DEBUG):
        assert not secrets.refresh()
        assert not secrets.refresh()
    assert secrets.value(BLOCK) == VALUE
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "shop-key" in caplog.text
    assert VALUE not in caplog.text


def test_a_block_that_is_gone_is_withdrawn() -> None:
    """A block that a Prefect that answers does not have is no secret any more."""
    prefect = Prefect()
    secrets = prefect.secrets()
    secrets.refresh()
    prefect.blocks.clear()
    assert secrets.refresh()
    assert secrets.value(BLOCK) == ""


def test_a_rotated_block_comes_into_force_by_itself() -> None:
    """The blocks are read again in the background, also after Prefect was away at the start."""
    prefect = Prefect()
    prefect.away = True
    secrets = prefect.secrets()
    with kept_fresh(secrets):
        prefect.away = False
        wait_for(lambda: secrets.value(BLOCK) == VALUE)
        prefect.blocks["shop-key"] = "rotated"
        wait_for(lambda: secrets.value(BLOCK) == "rotated")


def test_whatever_happens_the_blocks_are_read_again(caplog: pytest.LogCaptureFixture) -> None:
    """An error of any kind ends nothing, says nothing of its words, and the other blocks are read all the same."""
    prefect, broken, other = Prefect(), [False], prefect_secret("mill-key")
    prefect.blocks["mill-key"] = "first"

    def read(block: str) -> str:
        if broken[0] and block == "mill-key":
            raise RuntimeError(VALUE)
        return prefect.read(block)

    # In the order of their names, the broken one first.
    secrets = Secrets([BLOCK, other], resolve=lambda name: "", read=read)
    with kept_fresh(secrets):
        broken[0] = True
        wait_for(lambda: caplog.records, what="it fails")
        del prefect.blocks["shop-key"]
        wait_for(lambda: secrets.value(BLOCK) == "", what="the other one is withdrawn")
        assert secrets.value(other) == "first"
        broken[0] = False
        prefect.blocks["mill-key"] = "second"
        wait_for(lambda: secrets.value(other) == "second", what="it is read again")
    assert VALUE not in caplog.text
    assert "RuntimeError" in caplog.text


def test_without_blocks_nothing_is_asked() -> None:
    """A project whose secrets are all in the environment needs no Prefect."""
    prefect = Prefect()
    secrets = Secrets(["SHOP_SECRET"], resolve=lambda _: "env", read=prefect.read)
    with kept_fresh(secrets):
        assert secrets.value("SHOP_SECRET") == "env"
    assert prefect.asked == 0


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (200, {"data": {"value": VALUE}}, VALUE),
        (200, {"data": {"value": {"a": VALUE}}}, ""),
        (200, {"data": {}}, None),
        (200, [VALUE], None),
        (404, {"detail": "no"}, ""),
        (401, {"detail": VALUE}, None),
        (500, {"detail": VALUE}, None),
    ],
    ids=["a value", "no text", "no value", "no object", "no block", "no access", "an error"],
)
def test_what_prefect_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, answer: object, expected: str | None
) -> None:
    """A block's text is its value, a missing block is none, and of whatever else nothing is told."""
    asked: list[str] = []

    def get(url: str, **parts: object) -> httpx.Response:
        asked.append(url)
        return httpx.Response(status, json=answer, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    settings = load_settings(tmp_path, project="demo", prefect_api_url="http://prefect/api")
    secrets = open_secrets(settings, [Source(name="shop", dataset="shop", verify=stripe(BLOCK))])
    assert secrets.refresh() is (expected is not None)
    assert secrets.value(BLOCK) == (expected or "")
    assert asked == ["http://prefect/api/block_types/slug/secret/block_documents/name/shop-key"]


def test_without_a_prefect_a_block_is_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no Prefect is configured the source has no secret, and the log says what to do."""
    settings = load_settings(tmp_path, project="demo", prefect_api_url="")
    secrets = open_secrets(settings, [Source(name="shop", dataset="shop", verify=stripe(BLOCK))])
    assert not secrets.refresh()
    assert secrets.value(BLOCK) == ""
    assert "PENSTOCK_PREFECT_API_URL" in caplog.text
    assert "shop-key" in remedy(BLOCK)
    assert "SHOP_SECRET" in remedy("SHOP_SECRET")


def test_up_makes_a_secret_of_each_sources_own_form(tmp_path: Path) -> None:
    """The first name of a source without any secret gets one; one with a secret, a block or no need gets none."""
    sources = [
        Source(name="a", dataset="a", verify=standard_webhooks("A_SECRET", "A_NEXT")),
        Source(name="b", dataset="a", verify=svix("B_SECRET")),
        Source(name="c", dataset="a", verify=github("C_SECRET")),
        Source(name="d", dataset="a", verify=bearer("D_TOKEN")),
        Source(name="e", dataset="a", verify=stripe("E_SECRET", BLOCK)),
        Source(name="f", dataset="a", verify=stripe("F_SECRET", "F_NEXT")),
        Source(name="g", dataset="a", verify=unverified(because="a test")),
    ]
    found = made_secrets(tmp_path, sources, has=lambda name: name == "F_NEXT")
    ours = {name: value for name, value in found.items() if not name.startswith("PENSTOCK_")}
    assert sorted(ours) == ["A_SECRET", "B_SECRET", "C_SECRET", "D_TOKEN"]
    for source in sources[:4]:
        assert usable(source.verify, ours[source.verify.secrets[0]])
    assert made_secrets(tmp_path, sources, has=lambda name: False)["A_SECRET"] == ours["A_SECRET"]


def test_no_repr_shows_a_secret() -> None:
    """Neither a key nor a source's known secrets show a value when they are printed."""
    from datetime import UTC, datetime

    key = Standard("webhook").key("whsec_c2VjcmV0")
    known = Known(values=[VALUE], problem=None, read_at=datetime.now(UTC))
    prefect = Prefect()
    secrets = prefect.secrets()
    secrets.refresh()
    for shown in (repr(key), repr(known), repr(secrets)):
        assert "secret'" not in shown
        assert VALUE not in shown


def test_up_makes_the_token_of_a_challenge(tmp_path: Path) -> None:
    """Unless the environment has it: it is to be written down at the sender."""
    source = Source(name="meta", dataset="d", verify=github("HUB_SECRET"), challenge="META_VERIFY_TOKEN")
    made = made_secrets(tmp_path, [source], has=lambda name: False)
    assert len(made["META_VERIFY_TOKEN"]) >= 32
    assert "META_VERIFY_TOKEN" not in made_secrets(tmp_path / "other", [source], has=lambda name: True)
