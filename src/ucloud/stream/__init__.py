"""The process ``ucloud stream``: connections that stay, so that they never take a thread of the API.

Consoles as WebSockets on one side, the agents' doors on the other. Reads placement and seen/…/host to find a VM's
host; writes nothing. Must hold: nobody is joined to a console without the token, and their number is capped.
"""
