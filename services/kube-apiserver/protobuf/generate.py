#!/usr/bin/env python3
"""Generates tags.json.gz: the protobuf field number of every JSON field of the built-in kinds.

The numbers are read from the struct tags of the published Go types, in Debian's packages golang-k8s-api-dev and golang-k8s-apimachinery-dev
(0.36.4 was used; numbers are never reused, so a newer package only adds to the table):

    apt-get download golang-k8s-api-dev golang-k8s-apimachinery-dev
    for deb in *.deb; do dpkg-deb -x "$deb" root; done
    ./generate.py root/usr/share/gocode/src/k8s.io

Format: {TYPE: {JSON FIELD: [NUMBER, FLAGS], "+TYPE": [NUMBER, ""]}}, types named as in the schema table. "+TYPE" is a struct that is a message of its own
on the wire while its fields stand among their parent's in JSON. FLAGS: "p" a pointer or required in JSON, so that a zero is a value rather than "unset".
"""

import gzip
import io
import json
import os
import re
import sys

# What v1.35 has and the types published since do not: behind a feature gate that is off, and known from upstream's wire fixtures.
GONE = {
    "io.k8s.api.core.v1.PodSpec": {"workloadRef": [42, "p"]},
    "io.k8s.api.core.v1.WorkloadReference": {"name": [1, ""], "podGroup": [2, ""], "podGroupReplicaKey": [3, ""]},
}
STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}$", re.M | re.S)
FIELD = re.compile(r"^\s+(?:(\w+)\s+)?(\S+)\s+`([^`]*)`", re.M)
NUMBER = re.compile(r'protobuf:"\w+,(\d+),')
JSON = re.compile(r'json:"([^",]*)((?:,[a-z]+)*)"')
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
CORE = "io.k8s.api.core.v1."


def sources(root):
    for group in sorted(os.listdir(f"{root}/api")):
        for version in sorted(os.listdir(f"{root}/api/{group}")) if os.path.isdir(f"{root}/api/{group}") else []:
            path = f"{root}/api/{group}/{version}"
            for file in sorted(os.listdir(path)) if os.path.isdir(path) else []:
                if re.fullmatch(r"(\w+_)?types\.go", file):
                    yield f"{path}/{file}", f"io.k8s.api.{group}.{version}."
    yield f"{root}/apimachinery/pkg/apis/meta/v1/types.go", META


def embedded(name, prefix):
    package, _, base = name.lstrip("*").rpartition(".")
    return {"": prefix, "metav1": META, "v1": CORE, "corev1": CORE}[package] + base


def fields(body, prefix):
    found = {}
    for _, kind, tags in FIELD.findall(body):
        number, names = NUMBER.search(tags), JSON.search(tags)
        if not number or not names:
            continue
        name, options = names.groups()
        if "inline" in options:
            found["+" + embedded(kind, prefix)] = [int(number[1]), ""]
        elif name and name != "-":
            found[name] = [int(number[1]), "p" if kind.startswith("*") or "omitempty" not in options else ""]
    return found


def main():
    root = sys.argv[1]
    table = {}
    for path, prefix in sources(root):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for name, body in STRUCT.findall(text):
            found = fields(body, prefix)
            if found:
                table[prefix + name] = found
    for found in table.values():
        for name in [n for n in found if n[0] == "+" and n[1:] not in table]:
            # An alias of the stable version's type.
            group, _, base = name[1:].rsplit(".", 2)
            found[f"+{group}.v1.{base}"] = found.pop(name)
    for name, found in GONE.items():
        table.setdefault(name, {}).update(found)
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as packed:
        packed.write(json.dumps(table, sort_keys=True, separators=(",", ":")).encode())
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "tags.json.gz"), "wb") as file:
        file.write(out.getvalue())
    print(f"{len(table)} types, {sum(map(len, table.values()))} fields, {len(out.getvalue())} bytes")


if __name__ == "__main__":
    main()
