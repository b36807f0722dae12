"""Which runtime owns which worker: lease, take-over, hand-over, maintenance."""
