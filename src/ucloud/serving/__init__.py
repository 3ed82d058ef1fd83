"""What the API and the stream process share as servers: the token, the problem document, and patience with clients.

token: who may ask · problem: an error as RFC 9457 · sockets: a client's connection with deadlines · worker: gunicorn's
threads, none of which waits for a client that sends slowly · server: gunicorn itself. Reads and writes no keys.

Must hold: no client without the token can keep a thread waiting.
"""
