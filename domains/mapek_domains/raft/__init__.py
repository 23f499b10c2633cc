"""Raft: one log that a majority of nodes agrees on."""
