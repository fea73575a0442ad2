"""A Hub's API: repositories, revisions and paths, and the tokens for the store in which files lie."""
