"""The ledger: transactions, blocks, proofs, and replicas that catch up."""
