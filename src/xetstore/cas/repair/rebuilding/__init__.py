"""Parts of a rebuild: objects registered anew, rows that come from a snapshot, the places of both indexes."""
