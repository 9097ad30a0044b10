"""The warehouse: rows and object markers, written in one transaction."""
