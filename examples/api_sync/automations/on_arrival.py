"""A page that has landed is merged into the table at once."""

from penstock import on_arrival

AUTOMATIONS = [on_arrival("customers")]
