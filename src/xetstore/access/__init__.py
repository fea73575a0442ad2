"""Access: namespaces, tokens, the keys that sign them, and signed URLs."""
