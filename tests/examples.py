"""How much Hypothesis tries, where each example takes long."""

from __future__ import annotations

from hypothesis import settings


def examples(few: int) -> int:
    """`few` with the profile that every run uses, twenty times as many with `--hypothesis-profile=thorough`."""
    return few * 20 if settings.get_current_profile_name() == "thorough" else few
