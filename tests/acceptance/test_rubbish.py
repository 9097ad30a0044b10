"""Whatever cannot be loaded gets a clear outcome, and nothing else stops."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from tests.acceptance.running import Up, s3_put, weather
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def _nothing_else_stops(up: Up, request: pytest.FixtureRequest) -> object:
    """After each of these, a good file still goes through."""
    yield
    name = f"after-{abs(hash(request.node.name))}.csv"
    (up.inbox / "weather" / name).write_text(weather(2, year=2041))
    up.ends_as(f"weather/{name}", "loaded")


def test_a_key_that_climbs_out_is_refused_by_the_store(up: Up, tmp_path: Path) -> None:
    """A key with ../ in it is refused with a 4xx by the store itself, and lands nowhere."""
    made = up.made()
    from minio import Minio
    from minio.error import S3Error

    client = Minio(
        endpoint=made["PENSTOCK_S3_ENDPOINT"],
        access_key=made["PENSTOCK_S3_ACCESS_KEY"],
        secret_key=made["PENSTOCK_S3_SECRET_KEY"],
        secure=False,
        region="us-east-1",
    )
    source = tmp_path / "evil.csv"
    source.write_text(weather(1, year=2042))
    with pytest.raises((S3Error, ValueError)) as refused:
        client.fput_object(bucket_name="landing", object_name="weather/../../evil.csv", file_path=str(source))
    if isinstance(refused.value, S3Error):
        assert refused.value.response.status // 100 == 4
    assert not list(up.folder.rglob("evil.csv"))


def test_a_symlink_out_of_the_inbox_is_refused(up: Up) -> None:
    """A symlink is quarantined with the reason, and what it points at is not read."""
    (up.inbox / "weather" / "link.csv").symlink_to("/etc/hostname")
    story = up.ends_as("weather/link.csv", "quarantined")
    assert "symlink" in story["reason"]


def test_a_name_that_is_not_utf8_is_refused(up: Up) -> None:
    """A file whose name is not UTF-8 is quarantined with the reason, under its name in escapes."""
    path = os.fsencode(up.inbox / "weather") + b"/caf\xe9.csv"
    with open(path, "w") as file:
        file.write(weather(1, year=2043))
    story = up.ends_as("weather/caf\\xe9.csv", "quarantined")
    assert "not UTF-8" in story["reason"]
    os.rename(path, up.inbox / "weather" / "cafe.csv")
    up.ends_as("weather/cafe.csv", "loaded")


def test_an_empty_file_ends_as_empty(up: Up) -> None:
    """A file of 0 bytes ends as empty."""
    (up.inbox / "weather" / "nothing.csv").touch()
    assert "0 bytes" in up.ends_as("weather/nothing.csv", "empty")["reason"]


def test_a_binary_file_named_csv_is_quarantined(up: Up) -> None:
    """Rubbish with a .csv name is quarantined with the reason, and not one of its bytes is loaded."""
    (up.inbox / "weather" / "rubbish.csv").write_bytes(bytes(range(256)) * 40)
    assert up.ends_as("weather/rubbish.csv", "quarantined")["reason"]
    assert up.rows("weather", "weather/rubbish.csv") == 0


def test_an_unknown_folder_is_refused_with_what_to_do(up: Up) -> None:
    """A file in a folder of no dataset is quarantined, and the reason says what to declare."""
    (up.inbox / "unheard_of").mkdir()
    (up.inbox / "unheard_of" / "x.csv").write_text("a,b\n1,2\n")
    assert "declare one in flows/" in up.ends_as("unheard_of/x.csv", "quarantined")["reason"]


def test_an_unknown_prefix_in_the_bucket_is_quarantined(up: Up, tmp_path: Path) -> None:
    """An object that no dataset takes is quarantined, and the reason says what to declare."""
    source = tmp_path / "x.csv"
    source.write_text("a,b\n1,2\n")
    assert s3_put(up, source, "nobody/x.csv").returncode == 0
    assert "declare one in flows/" in up.ends_as("nobody/x.csv", "quarantined")["reason"]


def test_an_unknown_source_and_a_wrong_signature_are_refused(up: Up) -> None:
    """An unknown webhook source is a 404 and a wrong signature a 401, each as problem details."""
    base = f"http://127.0.0.1:{up.made()['PENSTOCK_PORT']}"
    unknown = httpx.post(f"{base}/hooks/nobody", content=b"{}")
    forged = httpx.post(
        f"{base}/hooks/github",
        content=b"{}",
        headers={"x-hub-signature-256": "sha256=" + "0" * 64, "x-github-delivery": "d-1"},
    )
    assert (unknown.status_code, forged.status_code) == (404, 401)
    assert {unknown.headers["content-type"], forged.headers["content-type"]} == {"application/problem+json"}
    assert up.why("d-1") == []


def test_one_bad_file_of_sales_is_refused_whole_and_its_neighbour_loads(up: Up) -> None:
    """Under the threshold of good rows the whole object is refused; the file beside it loads without its bad row."""
    header = "id,customer_id,product_id,quantity,unit_price,sold_at\n"
    good = "".join(f"{900 + n},1,1,2,60.0,2026-01-01 00:00:00\n" for n in range(19))
    (up.inbox / "sales" / "bad.csv").write_text(header + good[:200] + "\n" + "950,0,1,0,-1,2026-01-01 00:00:00\n" * 9)
    (up.inbox / "sales" / "good.csv").write_text(header + good + "951,0,1,1,1,2026-01-01 00:00:00\n")
    assert "must be good" in up.ends_as("sales/bad.csv", "quarantined")["reason"]
    story = up.ends_as("sales/good.csv", "loaded")
    assert (story["rows"], story["rejected"]) == (19, 1)
    rejected = up.facts("query", "SELECT reason, raw FROM sales__rejected WHERE _penstock_object LIKE '%/good.csv@%'")
    assert rejected == [{"reason": "check customer_known", "raw": "951,0,1,1,1,2026-01-01 00:00:00"}]
    wait_for(lambda: "sales/bad.csv" in up.run("status").stdout, what="status names what is quarantined")
