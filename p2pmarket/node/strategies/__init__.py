"""Strategies to choose from, one a file; their common ground is node/strategy.py."""
