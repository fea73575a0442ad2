"""Estimates of the saving of storing files, before any of it is stored."""
