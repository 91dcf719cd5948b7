"""The models that the reference trainer trains."""
