"""The watched folder: `inbox/tills/…` goes to the bucket under the same path."""

from penstock import Folder

SENSOR = Folder()
