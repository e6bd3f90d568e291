"""Self-signed certificates for tests, valid for a century: one of a server on loopback, and two of clients."""

from __future__ import annotations

import ssl
from pathlib import Path

SERVER = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUGhhvqFDdftifTk7
q6aCmnK+ByO3Uh4lGELDoFvm09ChRANCAATY03H9QkHV2ILLZxmkDll5ZxaAf5z5
obp5Y0MUcbiY+HZ2oojaWoYs+yvHAPIafpPOmZA4NtB3GQCUwuCy69zJ
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUIoOJPRIxL+/f8+FeDdC0nozM0WwwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGc2VydmVyMCAXDTI2MTEyODA4NDI0NVoYDzIxMjYxMTA0MDg0
MjQ1WjARMQ8wDQYDVQQDDAZzZXJ2ZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATY03H9QkHV2ILLZxmkDll5ZxaAf5z5obp5Y0MUcbiY+HZ2oojaWoYs+yvHAPIa
fpPOmZA4NtB3GQCUwuCy69zJo28wbTAdBgNVHQ4EFgQUimJN1QrXefBql0LvDrOa
9dKd2EUwHwYDVR0jBBgwFoAUimJN1QrXefBql0LvDrOa9dKd2EUwDwYDVR0TAQH/
BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0EAwID
SQAwRgIhAOZ4gajmMNP29Lp8SyeSvJUOZKUV9d6UERrS+08JxL2sAiEAq3kqkhUd
D7FVrQsJTHqhD5HxZoccbayz2SEfAMSrC44=
-----END CERTIFICATE-----
"""
OLD = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgzmfttSrFS7ZGPG2J
ofuapBVjF1+8pMzqTfxSNrHCzkmhRANCAAQ7AL8S47AYmtf7g3sgAY7La3L4KKJ3
H4ZoP+LKveojPAmbMOJnqNNDNYeJlY3uwsyl1VtjjHwsuya3IeuIYeuo
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjzCCATWgAwIBAgIULHGCbXKtm0IafVIf1BSNwHKm8HYwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDb2xkMCAXDTI2MTEyODA4NDI0NVoYDzIxMjYxMTA0MDg0MjQ1
WjAOMQwwCgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ7AL8S
47AYmtf7g3sgAY7La3L4KKJ3H4ZoP+LKveojPAmbMOJnqNNDNYeJlY3uwsyl1Vtj
jHwsuya3IeuIYeuoo28wbTAdBgNVHQ4EFgQUSqKMCvFZWKzpx+nb7Izg8CKfm/Uw
HwYDVR0jBBgwFoAUSqKMCvFZWKzpx+nb7Izg8CKfm/UwDwYDVR0TAQH/BAUwAwEB
/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0EAwIDSAAwRQIh
APHMk557+49j4BiMTvt7F5A2DBPE96EzUmIEjj8FYj4nAiBSuqFh/UuffiPXz27t
wDK384KFk+fQ2pfhhe7i58Llzg==
-----END CERTIFICATE-----
"""
NEW = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgYQ+SiWscmJlks7an
FWbn+vx2zLx8GE0K+Zkm2+YM37WhRANCAARpxZEDs6eCBNQYlLfQRAazkZoox358
t5ydng5PuYolrSEGNQEDwp7txH6S4ogRR8ld/XfdDTyOdRgvfd+GNLQC
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjjCCATWgAwIBAgIUSmMceq1O339dfH7AEAjigqMuDSMwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDbmV3MCAXDTI2MTEyODA4NDI0NVoYDzIxMjYxMTA0MDg0MjQ1
WjAOMQwwCgYDVQQDDANuZXcwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARpxZED
s6eCBNQYlLfQRAazkZoox358t5ydng5PuYolrSEGNQEDwp7txH6S4ogRR8ld/Xfd
DTyOdRgvfd+GNLQCo28wbTAdBgNVHQ4EFgQUNCtLO2GqNhxg2eYlE+Qx3ygugtww
HwYDVR0jBBgwFoAUNCtLO2GqNhxg2eYlE+Qx3ygugtwwDwYDVR0TAQH/BAUwAwEB
/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIg
R3jbk+ep7Q6DNtU1i3Jq7vI3Lg/CJ+TRWMTn6BbyR2sCIBciyPxHQ9EzCsfvfDmy
MxwULzp59FP+ZqeiygXPQ0M3
-----END CERTIFICATE-----
"""


def certificate(pem: str) -> str:
    """Return the certificate without its key."""
    return pem[pem.index("-----BEGIN CERTIFICATE") :]


def key(pem: str) -> str:
    """Return the key without its certificate."""
    return pem[: pem.index("-----BEGIN CERTIFICATE")]


def server_context(directory: Path, *, clients: str = "") -> ssl.SSLContext:
    """Return the context of a server; with `clients` it admits only clients with one of these certificates."""
    path = directory / "server.pem"
    path.write_text(SERVER)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    if clients:
        context.load_verify_locations(cadata=clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
