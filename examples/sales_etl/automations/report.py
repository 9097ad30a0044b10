"""Sales are loaded as soon as they arrive; every load is followed by the report, which is loaded in its turn."""

from penstock import on_arrival, on_loaded, run_deployment

AUTOMATIONS = [
    on_arrival("sales"),
    on_loaded("sales", run_deployment("daily-report/{project}"), name="sales reported"),
    on_arrival("daily_sales"),
]
