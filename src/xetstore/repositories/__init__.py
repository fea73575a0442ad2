"""Repositories as users have them: a local folder into a commit and back, over the names of any store."""
