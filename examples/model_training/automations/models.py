"""Days are loaded as they arrive, each load trains a model, each model is judged, and forecasts are answered."""

from penstock import on_arrival, on_loaded, run_deployment

AUTOMATIONS = [
    on_arrival("weather"),
    on_loaded("weather", run_deployment("train/{project}"), name="train on weather"),
    on_arrival("rain_models", flow="promote"),
    on_loaded("rain_models", run_deployment("track/{project}"), name="track verdicts"),
    on_arrival("forecasts", flow="predict"),
]
