"""Every query of the hub, a file for each kind of row, over the connection of a snapshot or a transaction."""
