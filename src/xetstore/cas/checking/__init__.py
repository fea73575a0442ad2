"""The parts of a check: of single objects, of files, of what is to be read; and the scrub, which never ends."""
