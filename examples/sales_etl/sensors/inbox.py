"""The watched folder: `inbox/sales/…` goes to the bucket under the same path."""

from penstock import Folder

SENSOR = Folder()
