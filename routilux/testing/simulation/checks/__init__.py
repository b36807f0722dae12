"""What the simulation checks, one promise or subject per file."""
