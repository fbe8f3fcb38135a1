"""The official Python client's typed calls over every API group: what it sends and what it makes of the answers.

    clients.py URL CA CERTIFICATE KEY CORPUS

The corpus is the folder of golden objects. Every call is found by the path that the client's own code names, so that a resource of the corpus
which the client cannot reach is an error. The client was generated from upstream's OpenAPI document: an answer that does not fit its models raises.
"""

import copy
import inspect
import json
import pathlib
import re
import sys

from kubernetes import client, dynamic, watch
from kubernetes.client.rest import ApiException

CALL = re.compile(r"call_api\(\s*'([^']+)', '([A-Z]+)'")
NAMESPACE = "default"


def typed_calls(api):
    """Every method of every API class, by verb and path."""
    found = {}
    for class_name, kind in inspect.getmembers(client, inspect.isclass):
        if not class_name.endswith("Api"):
            continue
        instance = kind(api)
        for name, function in inspect.getmembers(kind, inspect.isfunction):
            call = CALL.search(inspect.getsource(function)) if name.endswith("_with_http_info") else None
            if call:
                found[(call[2], call[1])] = getattr(instance, name.removesuffix("_with_http_info"))
    return found


class Resource:
    """One resource of the corpus."""

    def __init__(self, api, calls, dynamic_client, row):
        self.api, self.calls, self.dynamic, self.row = api, calls, dynamic_client, row
        self.path = row["at"].replace(f"/namespaces/{NAMESPACE}/", "/namespaces/{namespace}/")
        self.where = {"namespace": NAMESPACE} if "{namespace}" in self.path else {}

    def call(self, verb, sub="", **arguments):
        return self.calls[(verb, self.path + sub)](**self.where, **arguments)

    def can(self, verb, sub=""):
        return (verb, self.path + sub) in self.calls

    def model(self, value):
        """The corpus's JSON as an object of the model that a create takes and returns."""
        kind = re.search(r":return: (\w+)", inspect.getdoc(self.calls[("POST", self.path)]))[1]

        class Answer:
            data = json.dumps(value)

        return self.api.deserialize(Answer, kind)

    def review(self):
        try:
            made = self.call("POST", body=self.model(self.row["object"]))
            assert self.row.get("answer", 201) == 201, made
        except ApiException as refused:
            assert refused.status == self.row.get("answer"), refused

    def life(self):
        body = self.model(self.row["object"])
        name = body.metadata.name
        of = {"name": name}
        before = self.call("GET").metadata.resource_version
        made = self.call("POST", body=body, field_manager="python")
        kind = type(made)
        assert kind is type(body) and made.metadata.uid, made
        labels = {"metadata": {"labels": {"python": "yes"}}}
        assert self.call("PATCH", "/{name}", body=labels, **of).metadata.labels["python"] == "yes"
        read, replaced = self.put(of, annotate)
        assert type(read) is kind, read
        assert replaced.metadata.annotations["python"] == "replaced" and spec(replaced) == spec(read)
        applied = {"metadata": {"name": name, "labels": {"by": "apply"}}}
        kinds = self.dynamic.resources.get(api_version=replaced.api_version, kind=replaced.kind)
        again = kinds.server_side_apply(body={**applied, "apiVersion": replaced.api_version, "kind": replaced.kind},
                                        field_manager="applier", force_conflicts=True, **of, **self.where)
        assert again.metadata.labels["by"] == "apply"
        if "status" in self.row:
            assert type(self.call("GET", "/{name}/status", **of)) is kind
            self.call("PATCH", "/{name}/status", body={"status": self.row["status"]}, **of)
            assert type(self.put(of, lambda _: None, "/status")[1]) is kind
        if self.can("GET", "/{name}/scale"):
            assert self.put(of, two_replicas, "/scale")[1].spec.replicas == 2
        listed = self.call("GET", label_selector="python=yes")
        assert [item.metadata.name for item in listed.items] == [name], listed
        self.call("DELETE", "/{name}", **of, grace_period_seconds=0)
        self.finish(name)
        self.watched(name, before, kind)
        if self.can("DELETE"):
            self.call("DELETE", label_selector="python=yes")

    def put(self, of, change, under=""):
        """What was read and what a PUT of it, changed, made of it: again while the server's own controllers write it too."""
        for last in (False, False, False, True):
            read = self.call("GET", "/{name}" + under, **of)
            body = copy.deepcopy(read)
            change(body)
            try:
                return read, self.call("PUT", "/{name}" + under, body=body, **of)
            except ApiException as conflict:
                if last or conflict.status != 409:
                    raise

    def finish(self, name):
        """What controllers would do for an object that is to go."""
        try:
            self.call("PATCH", "/{name}", name=name, body={"metadata": {"finalizers": None}})
            if self.can("PUT", "/{name}/finalize"):
                left = self.call("GET", "/{name}", name=name)
                left.spec.finalizers = []
                self.call("PUT", "/{name}/finalize", name=name, body=left)
        except ApiException as gone:
            assert gone.status == 404, gone

    def watched(self, name, since, kind):
        events, seen = watch.Watch(), []
        lists = re.search(r":return: (\w+)List", inspect.getdoc(self.calls[("GET", self.path)]))[1]
        if not hasattr(client, lists):
            # The client derives the model from its list's, which for two kinds of one name in different groups is wrong.
            assert self.row["at"].endswith("/resourceclaims"), lists
            return
        selector = f"metadata.name={name}"
        of = dict(resource_version=since, field_selector=selector, timeout_seconds=10, **self.where)
        for event in events.stream(self.calls[("GET", self.path)], **of):
            assert type(event["object"]) is kind, event
            seen.append(event["type"])
            if seen[-1] == "DELETED":
                events.stop()
        assert seen[0] == "ADDED" and seen[-1] == "DELETED" and set(seen[1:-1]) == {"MODIFIED"}, seen


def annotate(object):
    object.metadata.annotations = {**(object.metadata.annotations or {}), "python": "replaced"}


def two_replicas(scale):
    scale.spec.replicas = 2


def spec(object):
    return getattr(object, "spec", None)


def run(url, ca, certificate, key, corpus):
    configuration = client.Configuration(host=url)
    configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file = ca, certificate, key
    api = client.ApiClient(configuration)
    calls, dynamic_client = typed_calls(api), dynamic.DynamicClient(api)
    rows = [row for file in sorted(pathlib.Path(corpus).glob("*.json")) for row in json.loads(file.read_text())]
    wrong = []
    made = client.CoreV1Api(api).create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "default"}})
    assert isinstance(made, client.V1ServiceAccount), made
    for row in rows:
        resource = Resource(api, calls, dynamic_client, row)
        try:
            if row["object"] is None:
                resource.call("GET")
            elif resource.can("GET", "/{name}"):
                resource.life()
            else:
                resource.review()
        except Exception as error:
            wrong.append(f"{row['at']}: {type(error).__name__}: {error}")
    discovered = len(dynamic_client.resources.search())
    minor = client.VersionApi(api).get_code().minor
    print(f"  {len(rows)} resources by {len(calls)} typed calls, {discovered} by discovery, of a server of 1.{minor}")
    return wrong


if __name__ == "__main__":
    said = run(*sys.argv[1:])
    print("\n".join(said), file=sys.stderr)
    sys.exit(1 if said else 0)
