"""Decisions: which rows matter, where they belong. Pure arithmetic on counts and arrays; nothing is moved here."""
