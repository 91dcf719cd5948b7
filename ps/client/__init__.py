"""The client SDK: what a trainer imports."""
