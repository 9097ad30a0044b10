"""Daily weather, one CSV row a day."""

from penstock import Dataset

DATASET = Dataset(
    name="weather",
    checks={"temperatures_in_order": "temp_min <= temp_max", "precipitation_not_negative": "precipitation >= 0"},
    threshold=0.9,
    report={"days_by_weather": "histogram(weather)", "precipitation_mm": "sum(precipitation)"},
)
