"""Differences between systems and file systems, and what belongs to the whole process, once."""
