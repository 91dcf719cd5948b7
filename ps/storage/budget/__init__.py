"""Budgets: how much memory there is, and which table may have how much of it."""
