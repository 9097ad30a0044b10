"""The customers of an HTTP API: a schedule asks for what changed, its pages land as they are, and are merged by key."""

import json
import os
import time
from datetime import timedelta
from typing import Annotated

import httpx
from flows._pages import (
    UNKNOWN,
    Known,
    Memory,
    Page,
    address,
    asked_at,
    key_of,
    next_memory,
    nothing_yet,
    pause_asked_for,
    read,
    will_pass,
)
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State
from prefect.tasks import exponential_backoff
from pydantic import Field, HttpUrl

import penstock
from penstock import Dataset, Deployment, not_null

API = os.environ.get("SYNC_API_URL", "http://127.0.0.1:8600")
EVERY = timedelta(seconds=float(os.environ.get("SYNC_EVERY_SECONDS", "60")))
TIMEOUT = float(os.environ.get("SYNC_TIMEOUT_SECONDS", "10"))
KEPT = "sync_customers.json"

DATASET = Dataset(
    name="customers",
    records="customers",
    columns={"id": "BIGINT", "updated_at": "TIMESTAMP WITH TIME ZONE"},
    checks={"changed": not_null("updated_at")},
    write="merge",
    key=["id"],
    order_by="updated_at",  # a page that comes late, or again, never takes the place of a newer one
)


def passing(task, run, state) -> bool:
    """Whether the task is to be tried again."""
    return will_pass(state.result(raise_on_failure=False))


@task(
    retries=5,
    retry_delay_seconds=exponential_backoff(0.5),
    retry_jitter_factor=0.5,
    retry_condition_fn=passing,
    # Whether a page is still what it was, only the server can say: it is asked, with the ETag.
    cache_policy=NO_CACHE,
    task_run_name="{page}",
)
def fetch(page: str, etag: str | None, timeout_seconds: float) -> tuple[Page, bytes | None]:
    """One page and its bytes; none of them where it is still the one with this ETag."""
    answer = httpx.get(page, headers={"If-None-Match": etag} if etag else {}, timeout=timeout_seconds)
    # Prefect's delays are fixed beforehand and come on top of what the server asks for.
    time.sleep(pause_asked_for(answer))
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        return Page(asked_at=asked_at(answer)), None
    answer.raise_for_status()
    return read(answer), answer.content


@flow(timeout_seconds=900)
def sync_customers(
    base_url: HttpUrl,
    page_size: Annotated[int, Field(ge=1, le=500)] = 100,
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10,
) -> State:
    """Land every page that has changed. Ends as Skipped where none has."""
    memory = remembered(str(base_url).rstrip("/"))
    here: str | None = address(memory, page_size)
    pages: dict[str, Known] = {}
    walked: list[Page] = []
    new = 0
    while here:
        known = memory["pages"].get(here, UNKNOWN)
        page, body = fetch(here, known["etag"], timeout_seconds)
        walked.append(page)
        if body is not None:
            new += page.newest is not None and penstock.land(key_of(body), body)
            known = {"etag": page.etag, "next": page.next and address(memory, page_size, page.next)}
        pages[here] = known
        here = known["next"]
    # Last: a run that dies before is done again from the same mark, and what it landed is not new.
    penstock.keep(KEPT, json.dumps(next_memory(memory, walked, pages)).encode())
    said = f"{len(walked)} pages asked for, {new} new ones landed"
    get_run_logger().info(said)
    return Completed(message=f"processed: {said}") if new else Completed(name="Skipped", message=f"skipped: {said}")


def remembered(api: str) -> Memory:
    """What the last sync kept, unless it was of another API."""
    try:
        memory = json.loads(penstock.kept(KEPT))
    except penstock.ObjectMissing:
        return nothing_yet(api)
    return memory if memory["api"] == api else nothing_yet(api)


DEPLOYMENTS = [
    Deployment(
        flow=sync_customers,
        every=EVERY,
        parameters={"base_url": API, "timeout_seconds": TIMEOUT},
        # Two at once would do no harm, but a hundred that have waited for a worker would all ask the API.
        concurrency_limit=1,
        collision="cancel_new",
    ),
]
