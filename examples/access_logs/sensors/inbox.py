"""The watched folder: `inbox/<dataset>/…` goes to the bucket under the same path."""

from penstock import Folder

SENSOR = Folder()
