"""Differences between systems and file systems, and state of the whole process, once."""
