"""Tools that work on this machine, not through the API: up, down, status, doctor, demo, image build.

``layout`` says where a cloud of one machine keeps what · ``certificates`` its own small authority · ``supervisor``
keeps its processes running · ``lifecycle`` up and down · ``doctor`` what the machine lacks.
"""
