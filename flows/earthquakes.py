"""Earthquakes: a GeoJSON document, a row for each of its features."""

from penstock import Dataset

DATASET = Dataset(
    name="earthquakes",
    format="json",
    records="features",
    derive={
        "occurred_at": "make_timestamptz(properties_time * 1000)",
        "longitude": "(geometry_coordinates->>0)::DOUBLE",
        "latitude": "(geometry_coordinates->>1)::DOUBLE",
        "depth_km": "(geometry_coordinates->>2)::DOUBLE",
        "magnitude": "properties_mag",
        "place": "properties_place",
    },
    checks={"has_a_time": "properties_time > 0"},
    report={"events_by_type": "histogram(properties_type)"},
)
