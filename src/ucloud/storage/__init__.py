"""Storage: image blobs and root disks on this host, and how images come in.

pool: what a pool can do, and what is kept in it · directory_pool: a pool in a directory · qcow2: the header of a
qcow2 file, read without trust · formats: what kind of file is this · images: a stream becomes a blob · inspect:
QEMU's opinion of it, in a cage · addresses: which addresses a download may dial · download: HTTP(S) to the outside ·
fetch: a blob from another host · collection: which blobs may go.

Reads and writes no keys: the agent hands it documents and reports what it found. Must always hold: a blob's name
is the SHA-256 of its content; a blob is whole or not there and never changes; nothing is deleted unless the
caller names it; no image can make QEMU read a file other than its own and the blob below it.
"""
