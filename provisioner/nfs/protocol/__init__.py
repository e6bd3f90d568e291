"""NFS on the wire, sans-IO: values in and bytes out, bytes in and values out. No socket, no clock, no asyncio.

`xdr` is the alphabet (RFC 4506), `rpc` the envelope (RFC 5531), `portmap` and `mount3` find an NFSv3 export (RFC 1833,
RFC 1813 appendix I), `nfs3` and `nfs4` are the versions (RFC 1813; RFC 7530, 8881, 7862), `values` is what both say of
an object. A decoder raises `xdr.MalformedReply` for whatever it cannot read, and holds no more than the reply.
"""
