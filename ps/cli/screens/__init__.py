"""The screens of psctl as lines of text."""
