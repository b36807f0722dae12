"""Tools to observe flows and jobs while they run."""
