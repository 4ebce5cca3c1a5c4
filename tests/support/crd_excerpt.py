"""Cuts out of a CustomResourceDefinition what a manifest uses; for tests/deploy/schemas.

    python crd_excerpt.py CRD.yaml MANIFEST.yaml SOURCE LICENCE > KIND.json

The definitions are megabytes, most of it descriptions of what nobody here sets. The excerpt keeps
types, patterns, choices and what is required of each field in the manifest, and knows no others.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_SAYS_NOTHING = {"description", "default", "format"}


def excerpt(schema: dict[str, Any], value: object) -> dict[str, Any]:
    """Return the schema of a value, without all that the value does not have."""
    kept = {
        key: content
        for key, content in schema.items()
        if key not in _SAYS_NOTHING | {"properties", "items"} and not key.startswith("x-")
    }
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        kept["properties"] = {
            key: excerpt(known[key], content) for key, content in value.items() if key in known
        }
        kept["additionalProperties"] = False
    elif isinstance(value, list) and "items" in schema:
        merged = {key: content for each in value for key, content in _as_dict(each).items()}
        kept["items"] = excerpt(schema["items"], merged or value[0])
    elif "properties" in schema or "items" in schema:
        kept["type"] = schema["type"]
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    return kept


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def main(arguments: Sequence[str]) -> None:
    """Print the excerpt for a manifest."""
    definition_path, manifest_path, source, licence = arguments
    definition = yaml.safe_load(Path(definition_path).read_text())
    manifest = yaml.safe_load(Path(manifest_path).read_text())
    _, _, version = manifest["apiVersion"].rpartition("/")
    (schema,) = [
        each["schema"]["openAPIV3Schema"]
        for each in definition["spec"]["versions"]
        if each["name"] == version
    ]
    cut = excerpt(schema, manifest)
    cut["properties"]["metadata"] = {"type": "object"}
    about = {"$comment": f"An excerpt of {source}, {licence}; see tests/support/crd_excerpt.py"}
    print(json.dumps(about | cut, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
