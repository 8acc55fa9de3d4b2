#!/usr/bin/env python3
"""The kit's eyes and hands in the cloud of provider.py: called with a verb, and parameters as JSON on standard input."""

import json
import os
import sys

from cloud import Cloud

GOOD_TOKEN = "good-token-of-the-python-cloud"


def directory(world):
    """Where the cloud of a world is."""
    return os.path.join(world["dir"], "cloud")


def describe(_parameters):
    """What can be tested here, and how."""
    return {
        "family": "python-folder",
        "kind": "dynamic",
        "order": {"typeId": "small", "location": "here"},
        "badCredentials": {"token": "bad-token-of-the-python-cloud"},
        "otherCredentials": {"token": "good-token-number-two"},
        "badConfig": {"directory": 7},
        "badOrders": [{"title": "no such type", "order": {"typeId": "huge"}, "field": "spec.type_id"}],
        "verbs": ["plant", "vanish"],
        "isolated": True,
        "listIntervalMs": 1000,
        "createMs": 10000,
        "orders": 5,
        "notes": ["written in Python from proto/ alone, with stock gRPC"],
    }


def set_up(parameters):
    """How a provider is configured in a world."""
    config = {"directory": directory(parameters["world"])}
    return {"config": config, "credentials": {"token": GOOD_TOKEN}}


def list_things(parameters):
    """What exists, past the provider."""
    cloud = Cloud(directory(parameters["world"]))
    things = [
        {"kind": "server", "externalId": machine["id"], "name": machine["name"], "ownershipKey": machine["key"]}
        for machine in cloud.list()
    ]
    return {"things": things, "writes": cloud.writes()}


def plant(parameters):
    """Makes machines appear that the provider never made."""
    cloud = Cloud(directory(parameters["world"]))
    planting = parameters["planting"]
    ids = [f"planted-{planting['name']}-{number}" for number in range(planting.get("count", 1))]
    for machine_id in ids:
        cloud.put({"id": machine_id, "name": planting["name"], "key": planting["ownershipKey"], "runs_at": 0})
    return ids


def vanish(parameters):
    """Makes a machine disappear."""
    Cloud(directory(parameters["world"])).drop(parameters["externalId"])


VERBS = {
    "describe": describe,
    "set-up": set_up,
    "list": list_things,
    "plant": plant,
    "vanish": vanish,
    "tear-down": lambda _parameters: None,
}

if __name__ == "__main__":
    json.dump(VERBS[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
