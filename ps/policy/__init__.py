"""Decisions: which rows are important, and where they belong. Pure arithmetic on counts and arrays; nothing is moved
here."""
