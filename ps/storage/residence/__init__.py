"""Where each row is: its way down to the disk and back up."""
