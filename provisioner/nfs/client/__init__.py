"""Our own NFS client: the directory tree of an export, reached from one unprivileged process without a mount.

From the bottom: `resolver` looks up names, `dial` makes a TCP connection, `wire` is one while it lives, `slots` shares
it between exports, `connection` makes a new one when it died or is stuck, `session` is what NFSv4.1 puts on it,
`client3` and `client4` are the operations by file handle behind one interface (`client`), `purge` removes trees,
`copying` has the server copy files, `tree` is the port, and `servers` shares connections. `errors` has the words.
"""
