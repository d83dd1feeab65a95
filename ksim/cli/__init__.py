"""The command line. `ksim.cli.main` is the way in."""
