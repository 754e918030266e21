"""Links for names that docstrings write as a reader of the code does: ``PixelSpace.unit``, without the module."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """A link to the documented object whose name ends like that; the shortest, which is a base class's method."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    # A name with its module may be documented where the package exports it.
    ending = "." + (target.rpartition(".")[2] if target.startswith("fastadv.") else target)
    objects = env.domains.python_domain.objects
    found = [name for name in objects if name.endswith(ending)]
    if not found:
        return None
    name = min(found, key=lambda name: (len(name), name))
    place = objects[name]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, content, name)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
