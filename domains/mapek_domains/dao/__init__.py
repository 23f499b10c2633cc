"""Governance: proposals, votes, quorum and execution."""
