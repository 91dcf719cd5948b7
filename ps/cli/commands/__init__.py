"""The commands of psctl, one file each."""
