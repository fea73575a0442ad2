"""Objects by key: one contract, kept in a directory, in memory, or in a bucket of an object store."""
