"""Real processes, real kills, for as long as one likes: `python -m tests.torture --help`."""
