"""Trades as they happen: what stays connected, and goes on where it was."""
