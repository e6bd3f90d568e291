"""The NFS protocols as codecs: values to bytes, and bytes to values.

No socket, no clock, no asyncio.

    xdr               data representation (RFC 4506)
    rpc               calls and replies (RFC 5531)
    portmap, mount3   find an NFSv3 export (RFC 1833, RFC 1813 appendix I)
    nfs3              NFSv3 (RFC 1813)
    nfs4              NFSv4.0 to 4.2 (RFC 7530, 8881, 7862), with nfs4_attributes, nfs4_sessions and nfs4_files
    values            values that all versions share

A decoder raises `xdr.MalformedReply` for bytes that it cannot read, and never uses more memory than the reply.
"""
