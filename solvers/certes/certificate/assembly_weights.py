"""Where the weights of an assembly come from when its certificate is checked: by path, or by digest from files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from certes import formats
from certes.assemblies import SEPARATOR, Assembly
from certes.cells import GatedNetwork
from certes.certificate.assembly_statement import AssemblyStatement, CouplingModel
from certes.certificate.check import identified
from certes.certificate.statement import Statement, SubjectModel
from certes.errors import CertesError, InputError
from certes.systems import System, Tensor, tensor
from certes.weights import StoredTensor, WeightFile, read_weights

#: An assembly; a mapping: path of a network -> whatever a network's certificate is checked against, and path of an
#: edge (``brain/v1<-v2``, or the pair of its ends' paths) -> array; or files and folders, which are searched by digest.
AssemblyWeights = Assembly | Mapping[Any, Any] | str | os.PathLike[str] | bytes | WeightFile | Iterable[Any]

_FILES = (str, os.PathLike, bytes, WeightFile)


class Sources:
    """Finds the weights of every network and edge.

    Args:
        given: see :data:`AssemblyWeights`; None: only what lies with the certificate.
        couplings: weight files with couplings that lie with the certificate, as bytes.

    Raises:
        InputError: a file that cannot be read.
    """

    def __init__(self, given: AssemblyWeights | None, couplings: Iterable[bytes] = ()) -> None:
        self._assembly = given if isinstance(given, Assembly) else None
        self._named: Mapping[Any, Any] = given if isinstance(given, Mapping) else {}
        self._files: list[WeightFile] = []
        self._read: dict[str, WeightFile] = {}
        self._known: dict[str, System] = {}
        self._edges: dict[str, dict[tuple[str, str, bool], Tensor]] = {}
        if isinstance(given, Mapping):
            for value in given.values():
                if isinstance(value, _FILES):
                    self._files.append(self._file(value))
        elif given is not None and self._assembly is None:
            self._files += [self._file(entry) for entry in _listed(given)]
        self._unused: set[Any] = {k for k, v in self._named.items() if not isinstance(v, _FILES)}
        beside = []
        for data in couplings:
            try:
                beside.append(read_weights(data, name="couplings.safetensors"))
            except InputError:
                continue  # nothing of it is used: what is missing then will be said
        self._stored: dict[tuple[str, tuple[int, ...], str], tuple[WeightFile, StoredTensor]] = {}
        for file in (*self._files, *beside):
            self._keep(file)
        #: Files of other formats, which take long to read: only where something is missing without them.
        self._foreign = list(_foreign_files(given))
        self._unread: list[str] = []

    def unused(self) -> list[str]:
        """What was given by path, and is the path of no network and of no edge that was asked for."""
        return sorted("<-".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in self._unused)

    def network(self, path: str, digest: str, statement: Statement) -> System:
        """The network at a path, with the weights that its certificate is about.

        Args:
            path: where it is in the assembly.
            digest: of its certificate: what is found by digest is looked for once.
            statement: of its certificate.

        Raises:
            InputError: other weights, another network or none at all; the slug is the reason code.
        """
        if self._assembly is not None:
            module = _module(self._assembly, path)
            if not isinstance(module, System):
                raise _wrong(path, "no network", "wrong-system")
            return _plain(path, identified(statement, module))
        if path in self._named:
            return _plain(path, identified(statement, self._value(path)))
        if digest not in self._known:
            self._known[digest] = self._searched(path, statement)
        return self._known[digest]

    def coupling(self, prefix: str, edge: CouplingModel, subject: SubjectModel) -> Tensor:
        """The tensor of an edge, if it has the stated digest.

        Args:
            prefix: path of the assembly, with the separator.
            edge: the edge.
            subject: what identifies its tensor.

        Raises:
            InputError: ``wrong-weights``, ``missing-weights``; ``wrong-system``: the given assembly has no such edge.
        """
        name = prefix + edge.name
        if self._assembly is not None:
            found = self._given_edge(prefix, edge, name)
        else:
            pair = (prefix + edge.to, prefix + edge.source)
            key = next((key for key in (name, pair) if key in self._named), None)
            if key is None:
                return self._stored_edge(name, subject)
            found = self._edge_value(name, key, subject)
        _agree(name, found, subject)
        return found

    def check_structure(self, path: str, statement: AssemblyStatement) -> None:
        """If an assembly was given: it has these modules, edges and this step at that path.

        Raises:
            InputError: ``wrong-system``, naming what differs.
        """
        if self._assembly is None:
            return
        given = _module(self._assembly, path)
        predicate = statement.predicate
        if not isinstance(given, Assembly):
            raise _wrong(path, "no assembly", "wrong-system")
        stated = [(module.name, module.kind) for module in predicate.modules]
        own = [(n, "assembly" if isinstance(m, Assembly) else "network") for n, m in given.modules.items()]
        edges = {(edge.to, edge.source, edge.inside) for edge in predicate.couplings}
        if stated != own:
            odd = next((a[0] for a, b in zip(own, stated, strict=False) if a != b), None) or [*own, *stated][-1][0]
            raise _wrong(path, f"other modules, the first that differs: {odd}", "wrong-system")
        if odd_edges := sorted(edges ^ {(edge.to, edge.source, edge.inside) for edge in given.couplings}):
            raise _wrong(path, f"other couplings: {odd_edges[0][0]}<-{odd_edges[0][1]} is in one only", "wrong-system")
        if predicate.step != given.step:
            raise _wrong(path, f"the step {given.step}, the certificate {predicate.step}", "wrong-system")

    def _keep(self, file: WeightFile) -> None:
        for entry in file.tensors.values():
            self._stored.setdefault((entry.dtype, entry.shape, entry.sha256), (file, entry))

    def _read_foreign(self) -> None:
        """The files of other formats in folders; what cannot be read may be no weight file at all, and is told."""
        for path in self._foreign:
            try:
                file = self._file(path)
            except CertesError as error:
                self._unread.append(f"{path.name} cannot be read ({error})"[:200])
            else:
                self._files.append(file)
                self._keep(file)
        self._foreign = []

    def _file(self, source: Any) -> WeightFile:
        if isinstance(source, WeightFile):
            return source
        if isinstance(source, bytes):
            return read_weights(source)
        key = os.fspath(source)
        if key not in self._read:
            self._read[key] = formats.read(source)
        return self._read[key]

    def _value(self, key: Any) -> Any:
        self._unused.discard(key)
        value = self._named[key]
        return self._file(value) if isinstance(value, (str, os.PathLike, bytes)) else value

    def _searched(self, path: str, statement: Statement) -> System:
        """From the files: the one that is stated, else wherever tensors of these digests lie."""
        stated = statement.file_subject()
        for file in self._files:
            if stated is not None and file.sha256 == stated.digest.sha256:
                return _plain(path, identified(statement, file))
        matrices = {}
        for role, subjects in statement.tensor_subjects().items():
            if len(subjects) != 1:
                raise InputError(path, "sparse weights", "dense weights", "wrong-weights")
            matrices[role] = self._by_digest(path, subjects[0]).tensor()
        return _plain(path, identified(statement, matrices))

    def _stored_edge(self, name: str, subject: SubjectModel) -> Tensor:
        found = self._by_digest(name, subject).tensor()
        _agree(name, found, subject)
        return found

    def _by_digest(self, path: str, subject: SubjectModel) -> StoredTensor:
        """The tensor with the stated bytes; if there is none, the reason tells another tensor of its name from none."""
        annotations = subject.annotations
        assert annotations is not None
        key = (annotations.dtype, tuple(annotations.shape), subject.digest.sha256)
        if key not in self._stored:
            self._read_foreign()
        if key in self._stored:
            return self._stored[key][1]
        own = [(file, file.tensors[n]) for file in self._files for n in _names(subject, file) if n in file.tensors]
        if len(own) == 1:
            file, entry = own[0]
            given = f"tensor {entry.name!r} of {file.name} is {entry.dtype} {list(entry.shape)}, sha256 {entry.sha256}"
            raise InputError(path, given, f"the tensor with sha256 {subject.digest.sha256}", "wrong-weights")
        given = f"no tensor with sha256 {subject.digest.sha256} in {len(self._files)} files"
        given = "; ".join([given, *self._unread[:3]])
        raise InputError(path, given, f"{annotations.dtype} of shape {annotations.shape}", "missing-weights")

    def _given_edge(self, prefix: str, edge: CouplingModel, name: str) -> Tensor:
        assert self._assembly is not None
        if prefix not in self._edges:
            node = _module(self._assembly, prefix.removesuffix(SEPARATOR))
            couplings = node.couplings if isinstance(node, Assembly) else ()
            self._edges[prefix] = {(own.to, own.source, own.inside): own.weights for own in couplings}
        found = self._edges[prefix].get((edge.to, edge.source, edge.inside))
        if found is None:
            raise _wrong(name, "no such coupling", "wrong-system")
        return found

    def _edge_value(self, name: str, key: Any, subject: SubjectModel) -> Tensor:
        value = self._value(key)
        if isinstance(value, WeightFile):
            return self._stored_edge(name, subject)
        try:
            return tensor(name, getattr(value, "weights", value))
        except InputError as error:
            raise InputError(error.field, error.given, error.expected, "wrong-weights") from error


def weight_files(path: str | os.PathLike[str]) -> list[Path]:
    """The weight files that are meant by a path: itself, or those of a folder, of other formats too."""
    return [*_listed(path), *_foreign_files(path)]


def _foreign_files(given: Any) -> Iterator[Path]:
    """Files of other formats in the folders that are meant; what was converted beside itself is left out."""
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        for file in sorted(path.glob("*")) if path.is_dir() else ():
            if file.is_file() and formats.is_foreign(file) and not file.with_suffix(".safetensors").exists():
                yield file
    elif isinstance(given, Iterable) and not isinstance(given, (bytes, WeightFile, Mapping)):
        for entry in given:
            yield from _foreign_files(entry)


def _listed(given: Any) -> Iterator[Any]:
    """Every file that is meant by a path, by a folder (its safetensors files, those of proofs apart), or by several."""
    if isinstance(given, (bytes, WeightFile)):
        yield given
    elif isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if path.is_dir():
            yield from (p for p in sorted(path.glob("*.safetensors")) if not p.name.endswith(".proof.safetensors"))
        else:
            yield path
    elif isinstance(given, Iterable):
        for entry in given:
            yield from _listed(entry)
    else:
        expected = "an assembly, a mapping by path, or weight files and folders"
        raise InputError("weights", f"a {type(given).__name__}", expected, "wrong-type")


def _names(subject: SubjectModel, file: WeightFile) -> tuple[str, ...]:
    """Under which names of a file the stated tensor would be expected."""
    own = subject.name.removeprefix(f"{file.name}#")
    return (own,) if own != subject.name or "#" not in subject.name else ()


def _module(assembly: Assembly, path: str) -> System | Assembly | None:
    module: System | Assembly | None = assembly
    for name in path.split(SEPARATOR) if path else ():
        module = module.modules.get(name) if isinstance(module, Assembly) else None
    return module


def _agree(name: str, found: Tensor, stated: SubjectModel) -> None:
    if len(found.subjects) != 1 or not stated.agrees(found.subjects[0]):
        own = found.subjects[0]
        given = f"{own.dtype} of shape {list(own.shape)} with sha256 {own.sha256}"
        raise InputError(name, given, f"the bytes with sha256 {stated.digest.sha256}", "wrong-weights")


def _plain(path: str, system: System | GatedNetwork) -> System:
    """A module that assemblies can hold.

    Raises:
        InputError: a gated cell, which offers no metric that is composed.
    """
    if isinstance(system, GatedNetwork):
        raise InputError(path, system.detail, "a network of form rate, hopfield or lure", "wrong-system")
    return system


def _wrong(path: str, given: str, slug: str) -> InputError:
    return InputError(path or "assembly", f"the given assembly has {given}", "what the certificate is about", slug)
