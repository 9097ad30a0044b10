"""Wildlife strikes by aircraft: a CSV whose headers hold spaces and signs."""

from penstock import Dataset

DATASET = Dataset(
    name="bird_strikes",
    columns={"flight_date": "DATE", "speed_ias_in_knots": "DOUBLE"},
    report={"strikes_by_size": "histogram(wildlife_size)", "cost_total": "sum(cost_total)"},
)
