"""CRDTs: replicas that change apart and always merge to the same state."""
