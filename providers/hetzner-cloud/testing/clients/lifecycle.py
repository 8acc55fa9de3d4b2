"""The life of a server, by the vendor's own Python client: created, listed, switched, rebuilt, deleted. Prints what it saw, one JSON line each."""

import json
import os

from hcloud import APIException, Client
from hcloud.images.domain import Image
from hcloud.locations.domain import Location
from hcloud.server_types.domain import ServerType

client = Client(token=os.environ["HCLOUD_TOKEN"], api_endpoint=os.environ["HCLOUD_ENDPOINT"], poll_interval=1)


def say(what, value):
    print(json.dumps({"what": what, "value": value}), flush=True)


made = client.servers.create(
    name="python-1",
    server_type=ServerType(name="cx22"),
    image=Image(name="debian-12"),
    location=Location(name="fsn1"),
    labels={"by": "python"},
)
for action in [made.action, *made.next_actions]:
    action.wait_until_finished()
server = client.servers.get_by_name("python-1")
say("created", [server.status, server.image.name])
say("listed", [each.name for each in client.servers.get_all(label_selector="by=python")])
server.power_off().wait_until_finished()
server.reload()
say("off", server.status)
server.power_on().wait_until_finished()
server.reload()
say("on", server.status)
server.rebuild(image=Image(name="ubuntu-24.04")).wait_until_finished()
server.reload()
say("rebuilt", [server.status, server.image.name])
volume = client.volumes.create(name="python-data", size=10, server=server)
volume.action.wait_until_finished()
for action in volume.next_actions:
    action.wait_until_finished()
volume.volume.reload()
say("attached", volume.volume.server.id == server.id)
try:
    client.servers.create(name="python-1", server_type=ServerType(name="cx22"), image=Image(name="debian-12"))
except APIException as refusal:
    say("refused", refusal.code)
server.delete().wait_until_finished()
client.volumes.delete(volume.volume)
say("left", [each.name for each in client.servers.get_all()])
