"""NFS client: the directory tree of an export, from one unprivileged process and without a mount.

From the bottom up:

    resolver      looks up server names
    connect       opens a TCP connection
    transport     one TCP connection: sends calls and matches the replies
    slots         shares the calls in flight fairly between the exports of a server
    connection    one program of a server: opens a connection on demand, replaces it if it breaks or gets stuck
    session       sessions of NFSv4.1 and 4.2 on a connection
    interface     the operations by file handle that every NFS version implements
    nfs3, nfs4    these operations in NFSv3, and in NFSv4.0 to 4.2
    reading, backlog, remove_tree    removal of whole trees in bounded memory
    files3, files4, tree_files    files with their content, for copies
    tree          the driver of the `Tree` port
    pool          connections shared by all exports of a server

`errors` translates what servers and networks answer into the errors of the port. `deadline` is the time limit that an
operation passes down through all of these layers.
"""
