"""Repair: an index made anew."""
