"""What is new is loaded as soon as it arrives."""

from penstock import on_arrival

AUTOMATIONS = [on_arrival("sales")]
