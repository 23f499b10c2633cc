"""The UDP mesh: real sockets on any system, without rights.

It is the embedded engine: its own plain link-state protocol, hop-by-hop forwarding, and, where several
nodes run in one process, emulated links with faults, traffic and a referee.
"""
