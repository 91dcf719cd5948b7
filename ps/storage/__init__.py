"""Stores rows. Mechanism only: no policy, no locks, no threads; the engine thread is the only caller."""
