"""Repair: what is damaged made whole from what is left of it, here and elsewhere; an index made anew."""
