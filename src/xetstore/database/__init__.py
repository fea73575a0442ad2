"""Databases: transactions, snapshots and migrations over an engine. No table is known here."""
