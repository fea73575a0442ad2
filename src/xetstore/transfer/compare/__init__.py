"""Differences between two versions of a file, local or stored."""
