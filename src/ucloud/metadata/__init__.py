"""What guests are told about themselves: keys, host name and user data, in the plain and in the OpenStack form.

Reads no key and writes none: the agent writes files, a process of its own answers guests from them, also when all else
has stopped. What must always hold: a caller is known by its network and its source address alone (the firewall guards
both), and gets the documents of its own VM or nothing.
"""
