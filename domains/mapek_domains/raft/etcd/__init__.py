"""The etcd engine: an etcd cluster keeps the log, and many runtimes share it.

`store` says in values what is asked of etcd, `grpc_server` says it to one server over gRPC, `client` to a
cluster. Above them `view` follows all keys of the fleet, and `presence`,
`election`, `claims`, `configuration` and `fleet` are each one thing that nodes agree upon. `session` puts
them together.

Of Raft's spans it opens two. `raft.leader_election` is a campaign of a node, with the revision at which the
leadership was created as `term`; `raft.commit` is a transaction or a revocation that was asked for, with
the keys that it wrote as `entries` and the store's revision as `commit_index`. How etcd's servers replicate
their log cannot be seen by a client, so that there is no `raft.log_replicate`.
"""
