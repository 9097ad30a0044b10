"""A shop that posts its sales as JSON, signed by Standard Webhooks."""

from penstock import Source, standard_webhooks

SOURCE = Source(name="sales", dataset="sales", verify=standard_webhooks("SALES_WEBHOOK_SECRET"))
