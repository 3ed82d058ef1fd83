"""The rules of the house, held against the code itself: who may import whom, and who may touch the machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "ucloud"

# room (or module directly below ucloud) → layer; lower never imports higher
LAYERS = {
    "errors": 0,
    "model": 0,
    "config": 1,
    "system": 1,
    "store": 1,
    "reconcile": 2,
    "scheduler": 3,
    "compose": 3,
    "ipam": 3,
    "network": 3,
    "firewall": 3,
    "hypervisor": 3,
    "metadata": 3,
    "storage": 3,
    "console": 3,
    "serving": 3,
    "agent": 4,
    "guard": 4,
    "api": 4,
    "control": 4,
    "stream": 4,
    "client": 5,
    "cli": 5,
    "local": 6,
    "lab": 7,
    "main": 8,
    "__main__": 8,
}
# Inside layer 1: config → system → store; a room may import those before it.
ORDER_IN_LAYER_1 = ("config", "system", "store")
SIBLINGS_APART = {3, 4}
HOST_ROOMS = {
    "agent",
    "guard",
    "metadata",
    "network",
    "firewall",
    "hypervisor",
    "storage",
    "store",
    "system",
    "reconcile",
}
CONTROL_ONLY = {"flask", "flask_openapi3", "pydantic", "gunicorn", "websockets", "cryptography"}
PURE = (
    "model/",
    "scheduler/feasible.py",
    "scheduler/rank.py",
    "scheduler/plan.py",
    "scheduler/snapshot.py",
    "scheduler/takeover.py",
    "scheduler/anew.py",
    "scheduler/preview.py",
    "scheduler/migrations.py",
    "scheduler/beginnings.py",
    "scheduler/targets.py",
    "scheduler/drain.py",
    "compose/documents.py",
    "compose/vm_documents.py",
    "compose/network_documents.py",
    "compose/parts.py",
    "compose/hosts.py",
    "ipam/plan.py",
    "network/plan.py",
    "firewall/rules.py",
    "firewall/nft.py",
    "hypervisor/command_line.py",
    "hypervisor/plan.py",
    "metadata/documents.py",
    "storage/qcow2.py",
    "storage/formats.py",
    "storage/addresses.py",
    "storage/collection.py",
    "storage/service/access.py",
    "storage/service/nbd.py",
    "guard/rules.py",
    "api/host_status.py",
    "lab/checker.py",
    "lab/check_processes.py",
    "lab/check_store.py",
    "lab/check_writes.py",
    "lab/settings.py",
)
IO_MODULES = {"subprocess", "socket", "os", "http", "ssl", "threading", "time", "pyroute2", "shutil", "urllib.request"}
SUBPROCESS_ALLOWED = {"system/run.py"}


@dataclass(frozen=True)
class Module:
    path: str
    room: str
    tree: ast.Module

    def imports(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Module]:
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if path == "__init__.py":
            continue
        room = path.split("/")[0].removesuffix(".py")
        found.append(Module(path, room, ast.parse(file.read_text(), path)))
    return found


MODULES = modules()


def ids(module: Module) -> str:
    return module.path


def allowed(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    above, below = LAYERS[importer], LAYERS[imported]
    if above != below:
        return below < above
    if above == 1:
        return ORDER_IN_LAYER_1.index(imported) < ORDER_IN_LAYER_1.index(importer)
    return above not in SIBLINGS_APART


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_a_room_imports_only_what_is_below_it(module: Module) -> None:
    rooms = {name.split(".")[1] for name in module.imports() if name.startswith("ucloud.")}
    wrong = sorted(room for room in rooms if room in LAYERS and not allowed(module.room, room))
    assert not wrong, f"{module.path} (layer {LAYERS[module.room]}) imports {wrong}"


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_every_room_has_a_layer(module: Module) -> None:
    assert module.room in LAYERS


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_every_module_says_what_it_is_for(module: Module) -> None:
    assert ast.get_docstring(module.tree)


@pytest.mark.parametrize("module", [one for one in MODULES if one.path.startswith(PURE)], ids=ids)
def test_pure_modules_touch_nothing(module: Module) -> None:
    touched = {name for name in module.imports() if name in IO_MODULES or name.split(".")[0] in IO_MODULES}
    assert not touched


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_only_the_gate_runs_programs(module: Module) -> None:
    if module.path in SUBPROCESS_ALLOWED:
        return
    assert "subprocess" not in set(module.imports())
    calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    assert not calls & {"os.system", "os.popen"}


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_only_keys_spells_keys(module: Module) -> None:
    if module.path == "store/keys.py":
        return
    texts = [node.value for node in ast.walk(module.tree) if isinstance(node, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and text.startswith("/ucloud/")]


@pytest.mark.parametrize("module", MODULES, ids=ids)
def test_only_config_reads_the_environment(module: Module) -> None:
    if module.room == "config":
        return
    attributes = {ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    assert not (attributes & {"os.environ"}) and not (calls & {"os.getenv"})


@pytest.mark.parametrize("module", [one for one in MODULES if one.room in HOST_ROOMS], ids=ids)
def test_host_rooms_need_only_the_host_dependencies(module: Module) -> None:
    assert not {name.split(".")[0] for name in module.imports()} & CONTROL_ONLY


def test_no_drawers() -> None:
    drawers = {"util", "utils", "common", "helper", "helpers", "manager", "misc"}
    assert not [module.path for module in MODULES if Path(module.path).stem in drawers]


def test_no_import_cycles() -> None:
    names = {
        f"ucloud.{one.path.removesuffix('.py').replace('/', '.').removesuffix('.__init__')}": one for one in MODULES
    }
    edges = {name: {to for to in top_level_imports(one, names) if to != name} for name, one in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' → '.join((*trail, name))}"
        if name in done:
            return
        for to in sorted(edges[name]):
            visit(to, (*trail, name))
        done.add(name)

    for name in sorted(edges):
        visit(name, ())


def top_level_imports(module: Module, names: dict[str, Module]) -> set[str]:
    found: set[str] = set()
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & names.keys()
            found |= submodules or ({node.module} & names.keys())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & names.keys()
    return found
