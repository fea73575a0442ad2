"""Files out of a Cas: asked for, fetched, decoded, checked, put where they belong."""
