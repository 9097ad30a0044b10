"""The command line: the composition root, and the only module that imports every room."""
