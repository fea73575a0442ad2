"""Every query of the index, a file for each kind of row; ``reader.py`` has them all."""
