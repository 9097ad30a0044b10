"""`python -m penstock.cli`: how `up` starts its parts, whatever the PATH is."""

from penstock.cli.main import main

main()
