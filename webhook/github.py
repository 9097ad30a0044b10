"""GitHub's webhook: signed with the secret that was set at GitHub."""

from penstock import Source
from penstock import github as signed_by_github

SOURCE = Source(
    name="github",
    dataset="github",
    verify=signed_by_github("GITHUB_WEBHOOK_SECRET"),
    headers=("x-github-event", "x-github-hook-id"),
)
