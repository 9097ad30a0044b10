"""The watched bucket: a PUT by any S3 client is as good as a file in the inbox."""

from penstock import Bucket

SENSOR = Bucket()
