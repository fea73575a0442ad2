"""Bytes that are here already and need not come again: an earlier attempt, a base file, the chunk cache."""
