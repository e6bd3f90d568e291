"""The `Tree` driver for mounted exports and local directories.

`tree` is the driver, `threads` runs system calls that can hang, `syscalls` are the calls by descriptor, `removal`
removes trees, and `errnos` translates errors.
"""
