"""Looking at flows and jobs while they run."""
