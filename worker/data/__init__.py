"""Where a trainer's batches come from: flights, Criteo files, synthetic clicks. Inside numpy, at the edge torch."""
