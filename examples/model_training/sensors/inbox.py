"""The watched folder: `inbox/weather/…` and `inbox/forecasts/…` go to the bucket under the same paths."""

from penstock import Folder

SENSOR = Folder()
