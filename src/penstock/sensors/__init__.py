"""The sensors: what sees that a file or an object is there."""
