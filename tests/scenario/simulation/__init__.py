"""A cloud with a virtual clock: etcd, networks, hosts and schedulers as discrete events, decided by the real rules.

``engine`` time and processes · ``network`` who reaches whom · ``etcd`` the cluster, its leases and its traps · ``door``
the real synchronous code on a store whose answers take time · ``guard``, ``qemu``, ``agent`` a host · ``scheduler`` the
elected process · ``cloud`` all of it, with its history · ``faults`` what goes wrong. No threads, no sleeping: one seed,
one run.
"""
