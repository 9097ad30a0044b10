"""Days with their weather: what there is to learn from. A day that comes again takes the place of what it was."""

from penstock import Dataset, accepted

LABELS = ("drizzle", "fog", "rain", "snow", "sun")

DATASET = Dataset(
    name="weather",
    columns={"date": "DATE", "temp_max": "DOUBLE", "temp_min": "DOUBLE", "wind": "DOUBLE"},
    checks={
        "measured": "date IS NOT NULL AND temp_max IS NOT NULL AND temp_min IS NOT NULL AND wind IS NOT NULL",
        "labelled": accepted("weather", LABELS),
    },
    write="merge",
    key=["date"],
)
