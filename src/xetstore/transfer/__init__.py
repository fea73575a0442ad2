"""Moving files in and out of any Cas: the one pair of pipelines for the embedded store and for servers."""
