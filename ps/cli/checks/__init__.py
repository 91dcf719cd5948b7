"""Checks that `psctl doctor` makes."""
