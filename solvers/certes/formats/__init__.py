"""Weight files of other programs: PyTorch checkpoints, ONNX graphs, Keras models and numpy archives.

Certificates are about safetensors. A file of another format is converted, without running anything that is in it, and
what is certified is the safetensors file that it converts to: the same tensors give the same bytes, so a certificate
that was made from ``model.pt`` holds for ``model.pt`` and for what ``certes convert model.pt model.safetensors`` wrote.

Paths alone are converted (:func:`read`). Bytes, which is what a service gets, are safetensors or refused.
"""

from certes.formats.reading import SUFFIXES, as_safetensors, converted, is_foreign, read

__all__ = ["SUFFIXES", "as_safetensors", "converted", "is_foreign", "read"]
