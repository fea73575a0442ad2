"""What differs between systems and file systems, once."""
