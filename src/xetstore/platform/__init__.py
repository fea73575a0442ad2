"""What differs between systems and file systems, or is the whole process's, once."""
