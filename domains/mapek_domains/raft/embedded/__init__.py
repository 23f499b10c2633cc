"""The embedded engine: the nodes keep the log themselves, by PySyncObj over the mesh's links.

PySyncObj elects and replicates. The transport, what a command is, what is kept on disk and everything
that is read from a peer are ours. No thread, no socket and no pickle is used.
"""
