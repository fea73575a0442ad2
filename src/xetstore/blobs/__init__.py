"""Objects by key: one contract, kept in a directory or in memory."""
