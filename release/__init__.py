"""What a release is made of: wheels for every system, their checks, and a check of all of it."""
