"""The client SDK, which a trainer imports."""
