#!/usr/bin/env python3
"""Generates v1.35.json.gz, the schema table, from the published definitions of Kubernetes v1.35.

The definitions come in the Python package kubernetes-validate 1.37.0:

    pip download --no-deps kubernetes-validate==1.37.0
    ./generate.py kubernetes_validate-1.37.0-py3-none-any.whl

The output is deterministic: a rerun that changes nothing changes no byte. Descriptions are left out.

Format: {"version": "v1.35", "types": {NAME: {"g": [[GROUP, VERSION, KIND], ...], "k": OPAQUE, "a": ATOMIC, "f": {FIELD: DEFINITION}}}}
  OPAQUE      for types without fields: any | object | quantity | intstr | time | microtime
  ATOMIC      1 if server-side apply replaces values of the type as a whole
  DEFINITION  t: type; r: 1 if required; l: list type; m: list map keys; s: patch strategy; p: patch merge key; a: 1 if the map is atomic; d: default
  type        s string, y base64 bytes, t time, b bool, i int32, j int64, f double, o open object, [T list, {T map, @NAME another type
"""

import gzip
import hashlib
import io
import json
import os
import sys
import zipfile

VERSION = "v1.35"
MEMBER = "kubernetes_validate/kubernetes-json-schema/v1.35.0-local/_definitions.json"
WHEEL_SHA256 = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"

# Types without fields of their own. Empty structs are not here: they have no fields and allow none.
OPAQUE = {
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "any",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "object",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "object",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "object",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intstr",
}
EMPTY = {
    "io.k8s.api.apiserverinternal.v1alpha1.StorageVersionSpec",
    "io.k8s.api.scheduling.v1alpha1.BasicSchedulingPolicy",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus",
}

# Defaults that upstream declares on the field. The definitions above lack them; defaults that depend on the kind are not declared on fields
# and live in the API server.
CORE = "io.k8s.api.core.v1."
DEFAULTS = {
    (CORE + "ContainerPort", "protocol"): "TCP",
    (CORE + "ServicePort", "protocol"): "TCP",
    (CORE + "FileKeySelector", "optional"): False,
    (CORE + "AzureDiskVolumeSource", "cachingMode"): "ReadWrite",
    (CORE + "AzureDiskVolumeSource", "fsType"): "ext4",
    (CORE + "AzureDiskVolumeSource", "kind"): "Shared",
    (CORE + "AzureDiskVolumeSource", "readOnly"): False,
    (CORE + "ISCSIVolumeSource", "iscsiInterface"): "default",
    (CORE + "ISCSIPersistentVolumeSource", "iscsiInterface"): "default",
    (CORE + "RBDVolumeSource", "keyring"): "/etc/ceph/keyring",
    (CORE + "RBDVolumeSource", "pool"): "rbd",
    (CORE + "RBDVolumeSource", "user"): "admin",
    (CORE + "RBDPersistentVolumeSource", "keyring"): "/etc/ceph/keyring",
    (CORE + "RBDPersistentVolumeSource", "pool"): "rbd",
    (CORE + "RBDPersistentVolumeSource", "user"): "admin",
    (CORE + "ScaleIOVolumeSource", "fsType"): "xfs",
    (CORE + "ScaleIOVolumeSource", "storageMode"): "ThinProvisioned",
    (CORE + "ScaleIOPersistentVolumeSource", "fsType"): "xfs",
    (CORE + "ScaleIOPersistentVolumeSource", "storageMode"): "ThinProvisioned",
}

SCALARS = {
    ("string", None): "s",
    ("string", "byte"): "y",
    ("string", "date-time"): "t",
    ("boolean", None): "b",
    ("integer", None): "j",
    ("integer", "int32"): "i",
    ("integer", "int64"): "j",
    ("number", "double"): "f",
    ("object", None): "o",
}


def base_type(schema):
    kind = schema.get("type")
    if isinstance(kind, list):
        (kind,) = [k for k in kind if k != "null"]
    return kind


def type_expression(schema):
    if "$ref" in schema:
        return "@" + schema["$ref"].removeprefix("#/$defs/")
    kind = base_type(schema)
    if kind == "array":
        return "[" + type_expression(schema["items"])
    if kind == "object" and "additionalProperties" in schema:
        return "{" + type_expression(schema["additionalProperties"])
    return SCALARS[kind, schema.get("format")]


def field(owner, name, schema, required):
    out = {"t": type_expression(schema)}
    if name in required:
        out["r"] = 1
    for key, short in (("list-type", "l"), ("list-map-keys", "m"), ("patch-strategy", "s"), ("patch-merge-key", "p")):
        if "x-kubernetes-" + key in schema:
            out[short] = schema["x-kubernetes-" + key]
    if schema.get("x-kubernetes-map-type") == "atomic":
        out["a"] = 1
    if (owner, name) in DEFAULTS:
        out["d"] = DEFAULTS[owner, name]
    return out


def groups(schema):
    kinds = [[k["group"], k["version"], k["kind"]] for k in schema.get("x-kubernetes-group-version-kind", [])]
    # Options and events of every group are one type; it is found under the core group.
    return kinds if len(kinds) == 1 else [k for k in kinds if k[:2] == ["", "v1"]]


def definition(name, schema):
    out = {}
    if groups(schema):
        out["g"] = groups(schema)
    if schema.get("x-kubernetes-map-type") == "atomic":
        out["a"] = 1
    if name in OPAQUE:
        out["k"] = OPAQUE[name]
    elif "properties" in schema:
        required = schema.get("required", [])
        out["f"] = {key: field(name, key, value, required) for key, value in schema["properties"].items()}
    elif name in EMPTY:
        out["f"] = {}
    else:
        sys.exit(f"{name} has no fields and is not known as opaque")
    return out


def main():
    wheel = open(sys.argv[1], "rb").read()
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != WHEEL_SHA256:
        sys.exit(f"{sys.argv[1]} has sha256 {digest}, expected {WHEEL_SHA256}")
    definitions = json.loads(zipfile.ZipFile(io.BytesIO(wheel)).read(MEMBER))["$defs"]
    for owner, name in DEFAULTS:
        assert name in definitions[owner]["properties"], (owner, name)
    table = {"version": VERSION, "types": {name: definition(name, schema) for name, schema in definitions.items()}}
    text = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), VERSION + ".json.gz")
    with open(path, "wb") as out:
        out.write(gzip.compress(text, 9, mtime=0))
    print(f"{path}: {len(table['types'])} types, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
