"""CRDTs: replicas that change apart and always merge to the same state.

What is shared is the Knowledge of the nodes: incidents, outcomes, facts and goals. The pure part knows no
network, clock or disk: `update` reads what others send before the engine (`engine`, Yrs by pycrdt) sees it,
`entries` and `view` say what it means, `authoring`, `shelves` and `clearing` what a node writes and clears
away, and `document` is all of it. `replica` carries news between a document and a node's Knowledge, `gossip`
over the mesh's messages (`messages`, `parts`), `connection` and `websocket` over WebSocket, `keep` to disk.

Nothing is signed: whoever can send to a replica is believed, but for what it says in the replica's own name.
"""
