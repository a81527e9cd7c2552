"""Who may import whom, as a table, and a checker that reads the sources without running them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rule:
    """What the modules below `room` may import.

    Attributes:
        room: dotted prefix of the modules that the rule binds.
        forbidden: dotted prefixes that they may not import.
        allowed: if given, the only dotted prefixes that they may import besides the standard library and the room.
        closed: whether everything of ours that they import, directly or not, must keep to `forbidden` too.
    """

    room: str
    forbidden: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None
    closed: bool = False


@dataclass(frozen=True)
class Import:
    """One import: `module` at `line` of its file imports `target`."""

    module: str
    target: str
    line: int


@dataclass(frozen=True)
class Violation:
    """An import that points the wrong way; `via` is the chain of modules that led there."""

    found: Import
    via: tuple[str, ...]

    def __str__(self) -> str:
        chain = f" (reached through {' -> '.join(self.via)})" if len(self.via) > 1 else ""
        return f"{self.found.module}:{self.found.line} imports {self.found.target}{chain}"


def within(name: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def module_files(roots: Mapping[str, Path]) -> dict[str, Path]:
    """Map every module's dotted name to its file; `roots` maps a package to the folder that holds it."""
    files = {}
    for package, folder in roots.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Every import in a file, at any depth, made absolute; also those by `import_module` with a literal name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield Import(module, base if alias.name == "*" else f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and _is_import_call(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                relative = len(name.value) - len(name.value.lstrip("."))
                anchor = package.split(".")[: len(package.split(".")) - relative + 1] if relative else []
                yield Import(module, ".".join([*anchor, name.value.lstrip(".")]), node.lineno)


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__"}


def _module_of(target: str, files: Mapping[str, Path]) -> str | None:
    """The module of ours that a target names, be it the module itself or something in it."""
    if target in files:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in files else None


def violations(roots: Mapping[str, Path], rules: tuple[Rule, ...]) -> list[Violation]:
    """Every import that breaks a rule, with the chain that leads to it."""
    files = module_files(roots)
    edges = {module: list(imports_of(module, path)) for module, path in files.items()}
    found: dict[tuple[Rule, Import], Violation] = {}
    for rule in rules:
        waiting = [(module,) for module in files if within(module, rule.room)]
        seen = {chain[-1] for chain in waiting}
        while waiting:
            chain = waiting.pop(0)
            for item in edges[chain[-1]]:
                if _breaks(item, rule):
                    found.setdefault((rule, item), Violation(item, chain))
                follow = _module_of(item.target, files)
                if rule.closed and follow is not None and follow not in seen:
                    seen.add(follow)
                    waiting.append((*chain, follow))
    return list(found.values())


def _breaks(item: Import, rule: Rule) -> bool:
    if any(within(item.target, prefix) for prefix in rule.forbidden):
        return True
    if rule.allowed is None or not within(item.module, rule.room):
        return False
    if item.target.partition(".")[0] in sys.stdlib_module_names:
        return False
    return not any(within(item.target, prefix) for prefix in (rule.room, *rule.allowed))
