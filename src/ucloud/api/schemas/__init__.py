"""What goes over the wire, as pydantic models: the only place that uses pydantic.

``fields`` has the building blocks, one module per noun has its bodies, ``parameters`` has queries, headers and paths.
What a model refuses, its JSON schema refuses as well, so that the OpenAPI document is the truth. A unit test holds the
fields of answers against the dataclasses of ``model``.
"""
