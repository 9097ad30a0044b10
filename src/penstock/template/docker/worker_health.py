"""The worker's health check: Prefect's server must have heard of the project's worker lately. Standard library only."""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request


def main() -> int:
    """0 when a worker of the pool is online."""
    auth = base64.b64encode(os.environ["PENSTOCK_PREFECT_AUTH"].encode()).decode()
    pool = os.environ["PENSTOCK_PROJECT"]
    request = urllib.request.Request(  # noqa: S310 - the address is a setting
        f"{os.environ['PENSTOCK_PREFECT_API_URL']}/work_pools/{pool}/workers/filter",
        data=b"{}",
        headers={"Authorization": f"Basic {auth}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - as above
        workers = json.load(answer)
    return 0 if any(worker["status"] == "ONLINE" for worker in workers) else 1


if __name__ == "__main__":
    sys.exit(main())
