"""Repair: what is damaged is made whole from what is left of it, here and elsewhere; nothing is silently deleted."""
