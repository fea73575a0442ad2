"""Names on top of a store: accounts, repositories, revisions and paths. No HTTP is known here."""
