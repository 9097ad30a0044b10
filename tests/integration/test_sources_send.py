"""`penstock send` and `doctor` with a source of every scheme, against a real edge; secrets from a real Prefect."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from penstock.cli.main import cli
from penstock.project import FOLDERS, load_project
from penstock.settings import load_settings
from penstock.sources import Source
from penstock.testing.intake import MemoryIntake
from penstock.verification import prefect_secret, stripe
from penstock.webhook.app import create_app
from penstock.webhook.secrets import Secrets, open_secrets
from penstock.webhook.serve import bind
from penstock.webhook.verify import challenge, sign
from tests.integration.prefect_parts import PrefectParts, prefect_parts
from tests.real_store import real_store

SOURCES = {
    "standard": 'standard_webhooks("NONE_YET", "A_WHSEC")',
    "signed": 'standard_webhooks("A_WHPK", "A_WHSK")',
    "svix": 'svix("A_WHSEC")',
    "stripe": 'stripe("A_TEXT")',
    "github": 'github("A_TEXT")',
    "slack": 'slack("A_TEXT")',
    "zoom": 'hmac_signed("A_TEXT", header="x-zm-signature", prefix="v0=", signed="v0:{timestamp}:{body}", '
    'timestamp_header="x-zm-request-timestamp")',
    "shopify": 'hmac_signed("A_TEXT", header="X-Shopify-Hmac-Sha256", encoding="base64", '
    'id_header="X-Shopify-Webhook-Id")',
    "linear": 'hmac_signed("A_TEXT", header="Linear-Signature")',
    "bearer": 'bearer("A_TEXT")',
    "gitlab": 'bearer("A_TEXT", header="X-Gitlab-Token")',
    "basic": 'basic("A_TEXT", user="shop")',
    "open": 'unverified(because="the wall has no door")',
}
CLOUDEVENTS = 'Source(name="events", dataset="things", verify=unverified(because="a test"), cloudevents=True)'
# Those whose id is in a header, so that --id tells it.
NAMED = {"standard", "signed", "svix", "github", "shopify", "bearer", "gitlab", "basic", "open"}
TEXT = "a-very-secret-text"
SECRETS = {
    "NONE_YET": "whsec_bm90IHRoaXMgb25lIGJ1dCBhbm90aGVyIG9uZQ==",
    "A_WHSEC": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "A_WHPK": "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
    "A_WHSK": "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "A_TEXT": TEXT,
}
IMPORTS = "from penstock import Dataset, Source, id_field\nfrom penstock.verification import *\n"


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A project with a source of each scheme, and its webhook."""

    folder: Path
    intake: MemoryIntake

    def run(self, *argv: str) -> Result:
        """A command's result."""
        return CliRunner().invoke(cli, ["--project", str(self.folder), *argv])

    def send(self, source: str, *argv: str) -> Result:
        """Send the file as a source."""
        return self.run("send", source, str(self.folder / "body.json"), *argv)


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "flows").mkdir()
    (tmp_path / "webhook").mkdir()
    (tmp_path / "flows" / "things.py").write_text(IMPORTS + 'DATASET = Dataset(name="things")\n')
    (tmp_path / "body.json").write_text('{"id": "evt_1", "event_id": "Ev1"}')
    for name, verify in SOURCES.items():
        own = ', dedup=id_field("event_id")' if name == "linear" else ""
        text = f'{IMPORTS}SOURCE = Source(name="{name}", dataset="things", verify={verify}{own})\n'
        (tmp_path / "webhook" / f"a_{name}.py").write_text(text)
    path = list(sys.path)
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in FOLDERS}
    (tmp_path / "webhook" / "events.py").write_text(f"{IMPORTS}SOURCE = {CLOUDEVENTS}\n")
    settings, intake = load_settings(tmp_path, project="demo"), MemoryIntake()
    app = create_app(
        sources=load_project(tmp_path, only=["flows", "webhook"]).sources,
        intake=intake,
        resolve_secret=settings.resolve_secret,
        notify_token="",
        buckets=[],
        clock=lambda: datetime.now(UTC),
        version="0",
    )
    ready = threading.Event()
    server = bind(app, port=0, on_ready=lambda _: ready.set())
    thread = threading.Thread(target=server.serve_until_stopped, daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        monkeypatch.setenv("PENSTOCK_PORT", server.url.rpartition(":")[2])
        yield Edge(folder=tmp_path, intake=intake)
    finally:
        server.should_exit = True
        thread.join(timeout=40)
        sys.path[:] = path
        for name in [name for name in sys.modules if name.split(".")[0] in FOLDERS]:
            del sys.modules[name]
        sys.modules.update(ours)
    assert not thread.is_alive()


def test_send_signs_as_every_source_does(edge: Edge) -> None:
    """What `send` posts as any source is taken under its id, once; nothing that it prints is a secret."""
    expected = {name: "d-1" if name in NAMED else "" for name in SOURCES} | {
        "stripe": "evt_1",
        "slack": "Ev1",
        "linear": "Ev1",
    }
    for name, delivery in expected.items():
        first, again = (edge.send(name, "--id", "d-1", "--json") for _ in range(2))
        assert first.exit_code == again.exit_code == 0, f"{name}: {first.output}"
        facts = json.loads(first.stdout)
        assert (facts["status"], facts["duplicate"]) == (202, False), name
        assert facts["delivery"] == delivery or (not delivery and len(facts["delivery"]) == 64), name
        assert json.loads(again.stdout)["duplicate"] is True, name
        assert not any(value in first.output for value in SECRETS.values())
    assert {delivery.source for delivery in edge.intake.deliveries} == set(SOURCES)


def test_what_is_not_signed_is_refused_by_every_source(edge: Edge) -> None:
    """Without a signature, with rubbish for one, and with a good one sent twice, the answer is the same 401."""
    url = f"http://127.0.0.1:{os.environ['PENSTOCK_PORT']}/hooks"
    for source in load_project(edge.folder, only=["flows", "webhook"]).sources:
        if source.verify.scheme == "none":
            continue
        secret = SECRETS["A_WHSK" if source.name == "signed" else source.verify.secrets[-1]]
        signed = list(sign(source.verify, secret, "d-1", b"{}", datetime.now(UTC)).items())
        rubbish = [(name.encode(), b"\xff\x80 v1,=,t=1,") for name, _ in signed]
        for headers in ([], rubbish, [*signed, signed[-1]]):
            answer = httpx.post(f"{url}/{source.name}", content=b"{}", headers=headers)
            assert answer.status_code == 401, f"{source.name}: {answer.text}"
            assert answer.json()["detail"] == "The request is not signed as this source says."
            assert answer.headers["www-authenticate"] == challenge(source.verify)
        assert httpx.post(f"{url}/{source.name}", content=b"{}", headers=signed).status_code == 202, source.name
    assert len(edge.intake.deliveries) == len(SOURCES) - 1


@pytest.mark.parametrize(
    ("source", "body", "argv", "says"),
    [
        ("slack", {"type": "url_verification", "challenge": "a1b2"}, (), "its challenge 'a1b2' came back"),
        ("slack", {"type": "url_verification", "challenge": "a b"}, (), "its challenge is none to give back"),
        ("github", {"zen": "Keep it simple."}, ("--header", "X-GitHub-Event: ping"), "'ping' is known"),
    ],
    ids=["challenge", "no challenge", "ping"],
)
def test_send_tells_a_handshake(edge: Edge, source: str, body: object, argv: tuple[str, ...], says: str) -> None:
    """What the sender asks before it sends is answered, delivers nothing, and is told so."""
    (edge.folder / "body.json").write_text(json.dumps(body))
    sent = edge.send(source, *argv)
    assert (sent.exit_code, edge.intake.deliveries) == (0, []), sent.output
    assert sent.stdout.startswith(f"200 a handshake: {says}, nothing is delivered by it.")
    assert "None" not in sent.stdout


def test_send_posts_cloudevents(edge: Edge) -> None:
    """An event, and an array as a batch, of which is told what is new, and what is known already."""
    events = [{"specversion": "1.0", "id": f"#{id}", "source": "/till", "type": "t"} for id in range(3)]

    def send(body: object, *argv: str) -> str:
        (edge.folder / "body.json").write_text("\n " + json.dumps(body))
        sent = edge.send("events", *argv)
        assert sent.exit_code == 0, sent.output
        return sent.stdout

    one = send(events[0])
    assert one.startswith("202 accepted: /till#%230. Next: penstock why ")
    assert shlex.split(one)[-1] == "/till#%230"
    assert send(events[0]).startswith("202 a duplicate, loaded once: /till#%230.")
    batch = "202 a batch: 2 accepted, 1 known already and loaded once. Next: penstock deliveries ls --source events\n"
    assert send(events) == batch
    assert send([]).startswith("202 a batch: 0 accepted. ")
    told = json.loads(send(events, "--json"))
    assert [one["duplicate"] for one in told["deliveries"]] == [True] * 3
    assert len(edge.intake.deliveries) == 3


def test_send_leaves_a_cloudevents_type_to_who_gives_it(edge: Edge) -> None:
    """With ce-* headers the file is the event's data, and a Content-Type is sent as it is given."""
    attributes = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/till", "ce-type": "t"}
    headers = [word for name, value in attributes.items() for word in ("--header", f"{name}: {value}")]
    sent = edge.send("events", *headers)
    assert sent.exit_code == 0, sent.output
    (found,) = edge.intake.deliveries
    assert json.loads(found.body)["data"] == {"id": "evt_1", "event_id": "Ev1"}
    refused = edge.send("events", "--header", "Content-Type: application/cloudevents+avro")
    assert "of the event formats only" in str(refused.exception)


def test_send_to_something_else_says_so(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A success that no webhook of penstock gives is not told as an accepted delivery."""
    monkeypatch.setattr(httpx, "post", lambda *args, **more: httpx.Response(200, json={"hello": "there"}))
    sent = edge.send("open")
    assert "what listens there" in str(sent.exception)
    assert "accepted" not in sent.stdout


def test_send_sends_each_header_once(edge: Edge) -> None:
    """A further header takes the place of one that `send` would send, in whatever case it is written."""
    sent = edge.send("open", "--id", "d-1", "--header", "Content-Type: text/csv")
    assert sent.exit_code == 0, sent.output
    assert edge.intake.deliveries[0].content_type == "text/csv"


@pytest.mark.parametrize(
    ("argv", "says"),
    [(("--header", "nothing"), "no header"), (("--id", "a b"), "no id"), (("--id", "a.b"), "no id")],
    ids=["header", "space", "full stop"],
)
def test_send_says_what_is_wrong_with_its_arguments(edge: Edge, argv: tuple[str, str], says: str) -> None:
    """What cannot be sent is a usage error, before anything is sent."""
    found = edge.send("standard", *argv)
    assert (found.exit_code, edge.intake.accept_calls) == (2, [])
    assert says in found.output


def test_send_without_a_secret_that_signs_says_so(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public key alone signs nothing, and without any secret there is the name to set."""
    monkeypatch.setenv("A_WHSK", "")
    assert "cannot sign" in str(edge.send("signed").exception)
    monkeypatch.setenv("A_TEXT", "")
    assert "set A_TEXT" in str(edge.send("github").exception)


def test_doctor_tells_of_each_sources_secrets(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that verifies nothing is warned of with its reason; a secret that is unset or malformed is a fault."""

    def sources() -> tuple[bool, str]:
        parts = json.loads(edge.run("doctor", "--json").stdout)["parts"]
        [found] = [part for part in parts if part["part"] == "sources"]
        return found["ok"], found["says"]

    ok, says = sources()
    assert ok
    assert says.startswith(f"{len(SOURCES) - 1} verified")
    assert "WARNING" in says
    assert "the wall has no door" in says
    monkeypatch.setenv("A_WHSEC", "whsec_%")
    ok, says = sources()
    assert not ok
    assert "A_WHSEC is no secret of svix's scheme" in says
    assert "whsec_%" not in says
    monkeypatch.setenv("A_WHSEC", "")
    assert "no secret for svix (A_WHSEC): set A_WHSEC" in sources()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectParts]:
    with real_store("embedded") as store, prefect_parts(tmp_path_factory.mktemp("secrets"), store) as parts:
        parts.start_server()
        yield parts


def put_block(parts: PrefectParts, value: str) -> None:
    """Save the block as a user does."""
    code = f"from prefect.blocks.system import Secret; Secret(value={value!r}).save('shop-key', overwrite=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=parts.client_env(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def secrets_of(parts: PrefectParts, password: str) -> Secrets:
    update = {"prefect_api_url": parts.url, "prefect_auth": SecretStr(password)}
    source = Source(name="shop", dataset="sales", verify=stripe(prefect_secret("shop-key")))
    return open_secrets(parts.settings().model_copy(update=update), [source])


def test_a_secret_block_of_a_real_prefect_is_read(server: PrefectParts) -> None:
    """What stands in a Secret block is the source's secret, its change is seen, and its end is the secret's end."""
    name = prefect_secret("shop-key")
    secrets = secrets_of(server, server.env["PENSTOCK_PREFECT_AUTH"])
    assert secrets.refresh()
    assert secrets.value(name) == ""
    put_block(server, TEXT)
    assert secrets.refresh()
    assert secrets.value(name) == TEXT
    put_block(server, "rotated")
    assert secrets.refresh()
    assert secrets.value(name) == "rotated"
    block = server.ask("GET", "/block_types/slug/secret/block_documents/name/shop-key")
    assert server.answer("DELETE", f"/block_documents/{block['id']}").status_code == httpx.codes.NO_CONTENT
    assert secrets.refresh()
    assert secrets.value(name) == ""


def test_without_its_password_prefect_tells_nothing(server: PrefectParts) -> None:
    """A server that refuses is no server without the block: what was known stays in force."""
    assert not secrets_of(server, "somebody:else").refresh()
