"""The protocol core: bytes <-> values, pure. No file, socket, clock, randomness or await in here."""
