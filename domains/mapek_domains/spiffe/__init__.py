"""Workload identity: SPIFFE documents and the handshakes they secure."""
