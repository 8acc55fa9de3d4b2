"""A cloud that is a folder: each machine is a file. It can be looked at by any process, and its names need not be unique."""

import json
import os
import time
import uuid

CREATE_SECONDS = 0.2
DELETE_SECONDS = 0.2


def now():
    """The time that this cloud goes by: one that nobody sets, and that all processes of the machine share."""
    return time.monotonic()


def is_running(machine):
    """Whether a machine's creation has come to its end."""
    return machine["runs_at"] <= now()


class Cloud:
    """The API of the cloud, as far as the provider needs one."""

    def __init__(self, directory):
        self._directory = directory
        os.makedirs(directory, exist_ok=True)

    def create(self, name, key, labels):
        """Begins to make a machine, and gives its id."""
        self.count_write()
        machine = {"id": f"py-{uuid.uuid4().hex[:8]}", "name": name, "key": key, "labels": labels}
        self.put({**machine, "runs_at": now() + CREATE_SECONDS})
        return machine["id"]

    def remove(self, machine_id):
        """Begins to remove a machine. Missing is success."""
        self.count_write()
        machine = self.get(machine_id)
        if machine is not None and "gone_at" not in machine:
            self.put({**machine, "gone_at": now() + DELETE_SECONDS})

    def get(self, machine_id):
        """One machine, or None."""
        return next((machine for machine in self.list() if machine["id"] == machine_id), None)

    def find(self, key):
        """All machines that carry a key, the oldest first."""
        return [machine for machine in self.list() if machine["key"] == key]

    def list(self):
        """All machines that exist."""
        machines = []
        for file in sorted(os.listdir(self._directory)):
            if file.endswith(".json"):
                with open(os.path.join(self._directory, file), encoding="utf8") as text:
                    machines.append(json.load(text))
        alive = [machine for machine in machines if machine.get("gone_at", float("inf")) > now()]
        return sorted(alive, key=lambda machine: machine["runs_at"])

    def put(self, machine):
        """Puts a machine there as it is."""
        path = os.path.join(self._directory, machine["id"])
        with open(path + ".new", "w", encoding="utf8") as text:
            json.dump(machine, text)
        os.replace(path + ".new", path + ".json")

    def drop(self, machine_id):
        """Makes a machine disappear, as if somebody had pulled the plug."""
        os.unlink(os.path.join(self._directory, machine_id + ".json"))

    def count_write(self):
        """Notes a call that changes something: each is one byte of a file."""
        with open(os.path.join(self._directory, "writes"), "ab") as count:
            count.write(b".")

    def writes(self):
        """Calls that changed something so far."""
        path = os.path.join(self._directory, "writes")
        return os.path.getsize(path) if os.path.exists(path) else 0
