"""Many entities in one table, each with a state of its own."""
