"""A shop that posts its sales as JSON, signed by Standard Webhooks.

`penstock up` makes SALES_WEBHOOK_SECRET on its first start, in .penstock/secrets.json. What is not signed with it is
refused.
"""

from penstock import Source, standard_webhooks

SOURCE = Source(name="sales", dataset="sales", verify=standard_webhooks("SALES_WEBHOOK_SECRET"))
