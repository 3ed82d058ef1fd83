"""ucloud: a cloud of virtual machines that one person can understand."""

__version__ = "0.1.0"
