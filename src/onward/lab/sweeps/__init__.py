"""Many configurations and seeds of an experiment: planned, run here or on a cluster, and compared."""
