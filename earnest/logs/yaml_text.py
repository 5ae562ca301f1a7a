"""YAML as plain data, within bounds. A module of its own, as most logs have none beside them and PyYAML takes time to
import."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import yaml

from earnest.columns import Json

MOST_NODES = 200_000
DEEPEST = 100


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader) if not TYPE_CHECKING else yaml.SafeLoader):
    """A safe loader, but a merge (``<<: *defaults``) is a key like others: merging can grow without bound, and what it
    names is looked at once, at its anchor."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        pass

    def construct_merge(self, node: yaml.ScalarNode) -> str:
        return node.value


def _untagged(loader: _Loader, tag: str, node: yaml.Node) -> Json:
    """What a tag of the application stands before, as plain data: nothing is made of it. A mapping keeps the tag under
    ``!``, as it may say which class it configures."""
    if isinstance(node, yaml.MappingNode):
        held: dict[str, Json] = {str(name): value for name, value in loader.construct_mapping(node, deep=True).items()}
        return held | {"!": tag}
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:merge", _Loader.construct_merge)
_Loader.add_multi_constructor("!", _untagged)


def from_yaml(text: str) -> Json:
    """A YAML document as plain values. Raises ValueError for what is none, for tags of Python objects, and above
    DEEPEST or MOST_NODES (asked of the events before anything is built: building recurses)."""
    try:
        _must_be_small(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _must_be_small(text: str) -> None:
    depth = nodes = 0
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)
    for event in events:
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or nodes > MOST_NODES:
            raise ValueError(f"nested over {DEEPEST} deep" if depth > DEEPEST else f"over {MOST_NODES:,} values")
