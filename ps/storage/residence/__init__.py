"""Where each row is: its way down to disk and back up."""
