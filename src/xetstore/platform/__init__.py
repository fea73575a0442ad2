"""What differs between systems, or is the whole process's: forks."""
