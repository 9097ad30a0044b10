"""Who measures posts a reading of each sensor every second, as a JSON array, signed by Standard Webhooks."""

from penstock import Source, standard_webhooks

SOURCE = Source(name="readings", dataset="readings", verify=standard_webhooks("READINGS_WEBHOOK_SECRET"))
