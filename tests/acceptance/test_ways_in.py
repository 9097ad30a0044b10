"""Every way in, with the whole system running: in the warehouse within seconds, and once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.model import State
from tests.acceptance.running import ROOT, WEATHER_HEADER, WITHIN_SECONDS, Up, s3_put, weather
from tests.waiting import wait_for

GITHUB = ROOT / "examples" / "data" / "github-webhooks"


def test_a_file_moved_in_is_loaded_once(up: Up, tmp_path: Path) -> None:
    """A file that is moved into the inbox is in the warehouse, once."""
    draft = up.folder / "moved.csv"
    draft.write_text(weather(40, year=2031))
    draft.rename(up.inbox / "weather" / "moved.csv")
    story = up.ends_as("weather/moved.csv", "loaded")
    assert story["rows"] == 40
    assert up.rows("weather", "weather/moved.csv") == 40


def test_a_file_written_slowly_through_one_handle_is_loaded_whole(up: Up) -> None:
    """A file in ten chunks through one handle is not touched before its writer closes it, then loaded whole."""
    lines = weather(100, year=2032).splitlines(keepends=True)
    with (up.inbox / "weather" / "slow.csv").open("w") as file:
        for start in range(0, 100, 10):
            file.writelines(lines[start : start + 10])
            file.flush()
            # Another file goes through meanwhile: the pipe is at work and leaves this one alone.
            if start == 50:
                (up.inbox / "weather" / "between.csv").write_text(weather(1, year=2033))
                up.ends_as("weather/between.csv", "loaded")
                assert up.why("weather/slow.csv") == []
        file.writelines(lines[100:])
    story = up.ends_as("weather/slow.csv", "loaded")
    assert story["rows"] == 100
    assert len(up.why("weather/slow.csv")) == 1
    assert up.rows("weather", "weather/slow.csv") == 100


def test_a_file_reopened_for_each_chunk_ends_as_its_last_content(up: Up) -> None:
    """A file that is opened anew for each of ten chunks ends in the warehouse as it is in the end, without doubles."""
    path = up.inbox / "weather" / "chunks.csv"
    lines = weather(100, year=2034).splitlines(keepends=True)
    path.write_text(lines[0])
    for start in range(1, 101, 10):
        with path.open("a") as file:
            file.writelines(lines[start : start + 10])
    wait_for(
        lambda: [story for story in up.stories("weather/chunks.csv") if story.rows == 100],
        seconds=WITHIN_SECONDS,
        what="the last content is loaded",
    )
    assert up.rows("weather", "weather/chunks.csv") == 100


def test_another_s3_clients_put_is_loaded(up: Up, tmp_path: Path) -> None:
    """An object that another S3 client PUT is in the warehouse, once."""
    source = tmp_path / "put.csv"
    source.write_text(weather(25, year=2035))
    done = s3_put(up, source, "weather/by rclone+1.csv")
    assert done.returncode == 0, done.stderr
    story = up.ends_as("weather/by rclone+1.csv", "loaded")
    assert story["rows"] == 25
    assert story["via"] == "notification"
    assert up.rows("weather", "weather/by rclone+1.csv") == 25


def test_a_signed_webhook_is_loaded_and_its_duplicate_is_not(up: Up) -> None:
    """A signed delivery is a row; the same delivery id again is answered as a duplicate and is no second row."""
    push = str(GITHUB / "push.1.json")
    first = up.facts("send", "github", push, "--id", "11111111-aaaa", "--header", "X-GitHub-Event: push")
    again = up.facts("send", "github", push, "--id", "11111111-aaaa", "--header", "X-GitHub-Event: push")
    assert (first["status"], first["duplicate"]) == (202, False)
    assert (again["status"], again["duplicate"]) == (202, True)
    up.ends_as("11111111-aaaa", "loaded")
    rows = up.facts("query", "SELECT event, repository FROM github WHERE delivery = '11111111-aaaa'")
    assert rows == [{"event": "push", "repository": json.loads(Path(push).read_text())["repository"]["full_name"]}]


def test_standard_webhooks_feed_a_dataset_of_plain_json(up: Up, tmp_path: Path) -> None:
    """A JSON body signed by Standard Webhooks lands in the table that CSV files feed too."""
    body = tmp_path / "sale.json"
    sale = {
        "id": 1,
        "customer_id": 5,
        "product_id": 2,
        "quantity": 3,
        "unit_price": 250.5,
        "sold_at": "2026-03-01 10:00:00",
    }
    body.write_text(json.dumps(sale))
    up.facts("send", "sales", str(body), "--id", "msg_1")
    up.ends_as("msg_1", "loaded")
    rows = up.facts("query", "SELECT total, category FROM sales WHERE id = 1")
    assert rows == [{"total": 751.5, "category": "high"}]


def test_an_overwritten_file_replaces_its_rows(up: Up) -> None:
    """A file written again replaces the rows it had brought before."""
    path = up.inbox / "weather" / "again.csv"
    path.write_text(weather(10, year=2036))
    up.ends_as("weather/again.csv", "loaded")
    path.write_text(weather(4, year=2037))
    wait_for(
        lambda: [story.rows for story in up.stories("weather/again.csv") if story.state is State.LOADED] == [4],
        seconds=WITHIN_SECONDS,
        what="the new content is loaded and the old one superseded",
    )
    assert up.rows("weather", "weather/again.csv") == 4


@pytest.mark.slow
@pytest.mark.long
def test_a_file_dropped_while_penstock_was_down_is_loaded_after_it_is_up(own: Up) -> None:
    """What was dropped while nothing ran is found at the next start; on the embedded store, PUTs are seen as well.

    Ctrl-C ends everything with exit code 0, and leaves no process behind.
    """
    own.start()
    (own.inbox / "weather" / "before.csv").write_text(weather(3, year=2038))
    own.ends_as("weather/before.csv", "loaded")
    source = own.folder / "put.csv"
    source.write_text(weather(6, year=2039))
    assert s3_put(own, source, "weather/put.csv").returncode == 0
    assert own.ends_as("weather/put.csv", "loaded")["rows"] == 6
    assert own.pids()
    assert own.stop() == 0
    wait_for(lambda: not own.pids(), what=f"nothing is left running: {own.pids()}")
    (own.inbox / "weather" / "down.csv").write_text(WEATHER_HEADER + "2040-01-01,0.0,1.0,0.0,1.0,sun\n")
    own.start()
    assert own.ends_as("weather/down.csv", "loaded")["rows"] == 1
    assert own.rows("weather", "weather/before.csv") == 3


@pytest.mark.slow
def test_the_demo_comes_out_right(own: Up) -> None:
    """`penstock demo` ends by itself with exit code 0, and leaves nothing behind."""
    own.folder.joinpath("examples").symlink_to(ROOT / "examples")
    done = own.run("demo", seconds=110)
    assert "All of it came out right" in done.stdout
    assert own.pids() == {}
