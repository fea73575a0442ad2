"""Names of one store into another one, behind the files that they name."""
