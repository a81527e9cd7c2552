"""Figures of certificates: what they show (:func:`picture`), and how it is drawn (:func:`draw`; extra ``figures``).

An assembly is drawn as a graph: a :class:`GraphPicture` by :func:`draw_assembly`.
"""

from certes.figure.assembly import draw_assembly, render_assembly
from certes.figure.drawing import draw
from certes.figure.graph import GraphEdge, GraphNode, GraphPicture
from certes.figure.pictures import FieldPicture, FrequencyPicture, Picture, SpectrumPicture, picture

__all__ = [
    "FieldPicture",
    "FrequencyPicture",
    "GraphEdge",
    "GraphNode",
    "GraphPicture",
    "Picture",
    "SpectrumPicture",
    "draw",
    "draw_assembly",
    "picture",
    "render_assembly",
]
