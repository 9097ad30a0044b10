"""The edge's own routes, by which it is known what a request is for."""

from __future__ import annotations

HOOKS = "/hooks/"
HOOK = "/hooks/{source}"
# What a route of ours answers below HOOKS. They come before a project's own.
HOOK_METHODS = ("POST", "GET", "OPTIONS")
NOTIFICATIONS = "/notifications/s3"
HEALTH = "/healthz"
READINESS = "/readyz"
METRICS = "/metrics"
OPENAPI = "/openapi.json"
# Those that are one path each.
SINGLE = frozenset((NOTIFICATIONS, HEALTH, READINESS, METRICS, OPENAPI))
