"""Tests of the kernel's own contract; what it computes is tested against the twin in tests/protocol."""
