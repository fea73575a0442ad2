"""The chunk cache: verified pieces of xorbs in a folder that processes share."""
