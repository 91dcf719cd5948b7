"""Where the files of checkpoints are: `store` says what a store can do, the others are stores."""
