"""Copies of whole stores: what a store has is verified on its way into another one, which may have other content."""
