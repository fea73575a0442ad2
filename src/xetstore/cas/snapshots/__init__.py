"""Snapshots of the index as objects of its store, and a journal of what was deleted since."""
