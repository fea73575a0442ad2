"""Estimates of what storing files would save, before any of it is stored."""
