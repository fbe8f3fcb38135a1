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
# The groups whose Go types no package of Debian has; the numbers are those of their published generated.proto (crate k8s-pb 0.9 has them too).
# FIELD=NUMBER, with "p" as in the table.
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
AGGREGATOR = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1."
CONDITION = "type=1p status=2p lastTransitionTime=3 reason=4 message=5"
ELSEWHERE = {
    EXTENSIONS + "CustomResourceColumnDefinition": "name=1p type=2p format=3 description=4 priority=5 jsonPath=6p",
    EXTENSIONS + "CustomResourceConversion": "strategy=1p webhook=2p",
    EXTENSIONS + "CustomResourceDefinition": "metadata=1 spec=2p status=3",
    EXTENSIONS + "CustomResourceDefinitionCondition": CONDITION + " observedGeneration=6",
    EXTENSIONS + "CustomResourceDefinitionList": "metadata=1 items=2p",
    EXTENSIONS + "CustomResourceDefinitionNames": "plural=1p singular=2 shortNames=3 kind=4p listKind=5 categories=6",
    EXTENSIONS + "CustomResourceDefinitionSpec": "group=1p names=3p scope=4p versions=7p conversion=9p preserveUnknownFields=10",
    EXTENSIONS + "CustomResourceDefinitionStatus": "conditions=1p acceptedNames=2p storedVersions=3p observedGeneration=4",
    EXTENSIONS + "CustomResourceDefinitionVersion": "name=1p served=2p storage=3p schema=4p subresources=5p additionalPrinterColumns=6"
    " deprecated=7 deprecationWarning=8p selectableFields=9",
    EXTENSIONS + "CustomResourceSubresourceScale": "specReplicasPath=1p statusReplicasPath=2p labelSelectorPath=3p",
    EXTENSIONS + "CustomResourceSubresourceStatus": "",
    EXTENSIONS + "CustomResourceSubresources": "status=1p scale=2p",
    EXTENSIONS + "CustomResourceValidation": "openAPIV3Schema=1p",
    EXTENSIONS + "ExternalDocumentation": "description=1 url=2",
    EXTENSIONS + "JSONSchemaProps": "id=1 $schema=2 $ref=3p description=4 type=5 format=6 title=7 default=8p maximum=9p exclusiveMaximum=10"
    " minimum=11p exclusiveMinimum=12 maxLength=13p minLength=14p pattern=15 maxItems=16p minItems=17p uniqueItems=18 multipleOf=19p enum=20"
    " maxProperties=21p minProperties=22p required=23 items=24p allOf=25 oneOf=26 anyOf=27 not=28p properties=29 additionalProperties=30p"
    " patternProperties=31 dependencies=32 additionalItems=33p definitions=34 externalDocs=35p example=36p nullable=37"
    " x-kubernetes-preserve-unknown-fields=38p x-kubernetes-embedded-resource=39 x-kubernetes-int-or-string=40"
    " x-kubernetes-list-map-keys=41 x-kubernetes-list-type=42p x-kubernetes-map-type=43p x-kubernetes-validations=44",
    EXTENSIONS + "SelectableField": "jsonPath=1p",
    EXTENSIONS + "ServiceReference": "namespace=1p name=2p path=3p port=4p",
    EXTENSIONS + "ValidationRule": "rule=1p message=2 messageExpression=3 reason=4p fieldPath=5 optionalOldSelf=6p",
    EXTENSIONS + "WebhookClientConfig": "service=1p caBundle=2 url=3p",
    EXTENSIONS + "WebhookConversion": "clientConfig=2p conversionReviewVersions=3p",
    AGGREGATOR + "APIService": "metadata=1 spec=2 status=3",
    AGGREGATOR + "APIServiceCondition": CONDITION,
    AGGREGATOR + "APIServiceList": "metadata=1 items=2p",
    AGGREGATOR + "APIServiceSpec": "service=1p group=2 version=3 insecureSkipTLSVerify=4 caBundle=5 groupPriorityMinimum=7p versionPriority=8p",
    AGGREGATOR + "APIServiceStatus": "conditions=1",
    AGGREGATOR + "ServiceReference": "namespace=1 name=2 port=3p",
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
    for name, text in ELSEWHERE.items():
        numbers = (field.split("=") for field in text.split())
        table[name] = {field: [int(number.rstrip("p")), "p" if number[-1] == "p" else ""] for field, number in numbers}
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
