"""Figures of certificates: what they show (:func:`picture`), and how it is drawn (:func:`draw`; extra ``figures``)."""

from certes.figure.drawing import draw
from certes.figure.pictures import FieldPicture, FrequencyPicture, Picture, SpectrumPicture, picture

__all__ = ["FieldPicture", "FrequencyPicture", "Picture", "SpectrumPicture", "draw", "picture"]
