"""Files into a Cas: cut, placed, packed into xorbs, registered."""
