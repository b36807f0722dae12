"""One thread, one turn: inputs, decisions, one commit, delivery."""
